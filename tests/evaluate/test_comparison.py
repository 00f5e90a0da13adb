"""Two evaluations side by side: figures, what cannot be compared, and the page with its pictures."""

import json
import re

import pytest
from data_sets import compare
from PIL import Image

from fine_edge.cli.evaluate import main
from fine_edge.errors import DataError, OutputError
from fine_edge.evaluate.comparison_page import to_html
from fine_edge.evaluate.image_pairs import MISSED, RIGHT, WRONG, drawings, most_different

BOX, FAR = [10, 10, 60, 60], [100, 10, 20, 20]


@pytest.fixture
def scene(tmp_path):
    """Six pictures with a cat each; A finds four of them and one thing that is none, B all six."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (160, 90), (30 * number, 90, 120)).save(tmp_path / "images" / f"{number}.png")
    data = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(6)],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": BOX} for n in range(6)],
        "categories": [{"id": 1, "name": "cat <b>"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    cats = [{"image_id": n, "category_id": 1, "bbox": BOX, "score": 0.9} for n in range(6)]
    wrong = {"image_id": 5, "category_id": 2, "bbox": FAR, "score": 0.8}
    (tmp_path / "first.json").write_text(json.dumps([*cats[:4], wrong]))
    (tmp_path / "second.json").write_text(json.dumps(cats))
    return tmp_path


def evaluation(scene, name, capsys, data="data.json"):
    """Path of the evaluation of a results file."""
    arguments = ["--data", scene / data, "--images", scene / "images", "--detections", scene / f"{name}.json"]
    assert main([*map(str, arguments), "--json"]) == 0
    path = scene / f"{name}.evaluation.json"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def both(scene, capsys):
    return evaluation(scene, "first", capsys), evaluation(scene, "second", capsys)


def run(*arguments):
    return main(["compare", *map(str, arguments)])


def test_figures_of_both_and_their_difference(both, capsys):
    assert run(*both, "--json", "--resamples", "50") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"]["model"], found["b"]["model"], found["images"]) == ("first", "second", 6)
    ap = found["difference"]["ap"]
    assert ap["value"] == pytest.approx(found["b"]["ap"] - found["a"]["ap"], abs=1e-9)
    assert 0 <= ap["low"] <= ap["value"] <= ap["high"] <= 1
    assert ap["relative"] == pytest.approx(found["b"]["ap"] / found["a"]["ap"] - 1)
    assert found["difference"]["ap_l"] == {"value": None, "relative": None}
    assert (found["a"]["errors"]["fp"], found["b"]["errors"]["fn"]) == (1, 0)


def test_the_tables(both, capsys):
    assert run(*both, "--resamples", "50") == 0
    printed = capsys.readouterr().out
    assert "second against first" in printed
    assert re.search(r"FN\s+2\s+0\s+-2", printed)
    assert "95 % interval" in printed


def test_an_evaluation_and_itself(both, capsys):
    assert run(both[0], both[0], "--resamples", "5") == 0
    printed = capsys.readouterr().out
    assert "first (B) against first (A)" in printed
    assert "may be chance" in printed


def test_the_most_telling_pictures(both):
    better, worse = most_different(compare(*both, resamples=2), 8)
    assert [(one.image_id, one.fewer()) for one in better] == [(5, 2), (4, 1)]
    assert worse == []
    worse = most_different(compare(*both[::-1], resamples=2), 1)[1]
    assert [(one.image_id, one.fewer()) for one in worse] == [(5, -2)]


def near(color, hexadecimal):
    wanted = (int(hexadecimal[place : place + 2], 16) for place in (1, 3, 5))
    return all(abs(one - other) < 90 for one, other in zip(color, wanted, strict=True))


def test_boxes_are_drawn_in_the_colour_of_what_they_are(both):
    comparison = compare(*both, resamples=2)
    pairs = most_different(comparison, 1)[0][0]
    a, b = drawings(comparison, pairs.image_id, pairs.a, pairs.b)
    assert near(a.getpixel((11, 50)), MISSED)
    assert near(a.getpixel((101, 20)), WRONG)
    assert near(b.getpixel((11, 50)), RIGHT)


def test_the_page(both, scene, capsys):
    assert run(*both, "--html", scene / "page.html", "--resamples", "50") == 0
    page = (scene / "page.html").read_text()
    assert "second makes fewer errors" in page
    assert "second makes more errors" not in page
    assert page.count("<img ") == 4
    assert "cat &lt;b&gt;" in page
    assert "cat <b>" not in page
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert capsys.readouterr().err.strip().endswith("page.html")


def test_the_page_where_the_pictures_are_gone(both, scene):
    for picture in (scene / "images").iterdir():
        picture.unlink()
    assert "The pictures are not on this machine" in to_html(compare(*both, resamples=2))


def test_other_data_is_refused(scene, both, capsys):
    (scene / "other.json").write_text((scene / "data.json").read_text() + "\n")
    other = evaluation(scene, "second", capsys, "other.json")
    with pytest.raises(DataError, match=r"is of data\.json, .* of other\.json"):
        compare(both[0], other)


@pytest.mark.parametrize("file", ["first.json", "data.json"])
def test_files_that_changed_are_refused(scene, both, file):
    (scene / file).write_text((scene / file).read_text() + " ")
    with pytest.raises(DataError, match=f"{file}: is not what was evaluated any more"):
        compare(*both)


def test_files_that_are_gone_are_looked_for_beside_the_evaluation(scene, both, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("first.json", "second.json", "data.json", *(path.name for path in both)):
        (elsewhere / name).write_bytes((scene / name).read_bytes())
        if name != both[0].name:
            (scene / name).unlink(missing_ok=True)
    moved = [elsewhere / path.name for path in both]
    assert compare(*moved, resamples=2).ap["bbox"].value > 0
    (elsewhere / "first.json").unlink()
    with pytest.raises(DataError, match=r"first\.json is gone"):
        compare(*moved)


@pytest.mark.parametrize("broken", ["{}", "[]", "x", '{"format": 1}'])
def test_what_is_no_evaluation_is_refused(both, broken):
    both[0].write_text(broken)
    with pytest.raises(DataError, match="evaluate again"):
        compare(*both)


def test_no_image_in_common(both):
    for path, skipped in zip(both, (range(3), range(3, 6)), strict=True):
        path.write_text(json.dumps({**json.loads(path.read_text()), "skipped": {f"{n}.png": "gone" for n in skipped}}))
    with pytest.raises(DataError, match="have no image in common that both could read -> evaluate again"):
        compare(*both, resamples=2)


def test_a_page_that_could_not_be_written_is_refused_first(both, scene):
    with pytest.raises(OutputError, match="is a folder"):
        run(*both, "--html", scene)
