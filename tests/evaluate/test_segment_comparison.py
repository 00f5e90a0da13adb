"""Two segmenters side by side, and two artifacts of one: mean IoU, panoptic quality, and what changed in each image."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_pipeline import Brightness, contract

from fine_edge.cli.evaluate import main
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate.segment_comparison import compare_segments
from fine_edge.evaluate.segment_data import read_data
from fine_edge.evaluate.segment_panels import key, panels
from fine_edge.evaluate.segments import SegmentMap, evaluate_segments, write_map
from fine_edge.evaluate.sides import read_sides
from fine_edge.files import sha256_of
from fine_edge.runners.opened import Opened
from fine_edge.zoo.labels import CITYSCAPES_LABELS

SIDE = 8
ROAD, CAR, SKY = (CITYSCAPES_LABELS.index(name) for name in ("road", "car", "sky"))
LABELS = ("__background__", "cat", "sky", "things")


class Maps(Brightness):
    """Gives the next of its outputs for each picture."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = iter(outputs)

    def run(self, _inputs):
        return next(self.outputs)


def evaluated(data, folder, name, labels, outputs, model="m"):
    """Path of the evaluation of a segmenter that gives these outputs."""
    task = "semantic" if data.segments is None else "panoptic"
    made = replace(contract(task=task), labels=labels, model=model)
    opened = Opened(Maps(outputs), made, "fp32", name * 8, "onnx")
    evaluation = evaluate_segments(opened, data, folder / "images", folder / name)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(evaluation.to_json()))
    return path


def classes(*columns):
    """A map (1, 8, 8) of as many columns of each class: (class, columns)."""
    return np.concatenate([np.full((1, SIDE, number), one, np.int64) for one, number in columns], axis=2)


@pytest.fixture
def streets(tmp_path):
    """Four pictures: the left half road, the right half car. A takes part of the road for car, B less of it."""
    truth = np.full((SIDE, SIDE), 7, np.uint8)
    truth[:, SIDE // 2 :] = 26
    for number in range(4):
        for kind, suffix, pixels in (
            ("labels", "_gtFine_labelIds.png", truth),
            ("images", "_leftImg8bit.png", np.zeros((SIDE, SIDE, 3), np.uint8)),
        ):
            (tmp_path / kind / "ulm").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / "ulm" / f"{number}<b>{suffix}")
    data = read_data(tmp_path / "labels")
    first = [{"classes": classes((ROAD, 4 - number), (CAR, 4 + number))} for number in range(4)]
    second = [{"classes": classes((ROAD, 4), (CAR, 4))} for _ in range(3)] + [{"classes": classes((ROAD, 2), (SKY, 6))}]
    return [evaluated(data, tmp_path, name, CITYSCAPES_LABELS, one) for name, one in (("a", first), ("b", second))]


def test_mean_iou_with_its_interval_and_by_class(streets):
    found = compare_segments(*read_sides(*streets), resamples=200)
    # A: 26 road pixels of 4 x 8 columns; in all 10 of 16 columns of road are found.
    assert found.of_category("road") == (pytest.approx(10 / 16), pytest.approx(14 / 16))
    assert found.of_category("car") == (pytest.approx(16 / 22), pytest.approx(12 / 16))
    assert found.figure("miou")[0] == pytest.approx((10 / 16 + 16 / 22) / 2)
    assert found.figure("pixel_accuracy") == (pytest.approx(26 / 32), pytest.approx(26 / 32))
    miou = found.differences["miou"]
    assert miou.value == pytest.approx(found.figure("miou")[1] - found.figure("miou")[0])
    assert miou.low < miou.value < miou.high
    assert found.by_category["train"] is None, "neither labelled nor found"


def test_what_changed_in_each_image(streets):
    found = compare_segments(*read_sides(*streets), resamples=2)
    changes = {one.image_id: one for one in found.by_image}
    assert [one.image_id for one in found.by_image] == [4, 3, 2, 1]
    assert changes[1].moved == 0
    assert changes[1].kind is None
    assert (changes[3].moved, changes[3].of, changes[3].kind) == (16, 64, "road taken for car")
    assert (changes[3].kind_a, changes[3].kind_b) == (16, 0)
    assert (changes[4].moved, changes[4].kind, changes[4].kind_b) == (56, "car taken for sky", 32)
    assert found.moved_share == pytest.approx((8 + 16 + 56) / 256)


def test_tables_json_and_page(streets, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, streets), "--resamples", "20", "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "pixel accuracy" in printed
    assert "car taken for sky: 0 to 32 pixels" in printed
    assert max(map(len, printed.splitlines())) <= 100
    text = page.read_text()
    assert "&lt;b&gt;" in text
    assert "<b>_" not in text
    assert main(["compare", *map(str, streets), "--resamples", "20", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["task"] == "semantic"
    assert got["difference"]["pixel_accuracy"]["value"] == pytest.approx(0)
    assert got["by_image"][0]["kind"] == "car taken for sky"


@pytest.mark.parametrize(("limit", "code"), [("20", 0), ("0.1", 1)])
def test_drift_is_gated_by_mean_iou(streets, capsys, limit, code):
    assert main(["drift", *map(str, streets), "--resamples", "2", "--max-ap-drop", limit]) == code
    printed = capsys.readouterr()
    assert "mIoU drop: " in printed.out
    assert "31.250% of all." in printed.out
    assert ("mIoU dropped by" in printed.err) == bool(code)


def test_segments_have_no_scores_to_draw_by(streets):
    with pytest.raises(ConfigError, match="the evaluations are of segments"):
        main(["compare", *map(str, streets), "--threshold", "0.8", "--resamples", "2"])
    with pytest.raises(ConfigError, match="classes of pixels are no objects"):
        main(["compare", *map(str, streets), "--only", "fp", "--picture", "sheet.png", "--resamples", "2"])


def test_panels_of_classes_show_which_of_the_two_is_right(streets, tmp_path, capsys):
    found = compare_segments(*read_sides(*streets), resamples=2)
    rows = [one.row for one in panels(found, None, 3)]
    assert [row.title for row in rows] == [f"ulm/{number}<b>_leftImg8bit.png" for number in (3, 2, 1)]
    assert [title for title, _ in rows[1].panels] == [
        "picture",
        "labelled",
        "m fp32 (A): 75.0% of the pixels right",
        "m fp32 (B): 100.0% of the pixels right",
        "differ: 25.00%",
    ]
    # Of the picture 2, A takes the columns 2 and 3 of road for car; of the picture 3, B finds sky from column 2 on.
    better, worse = (np.asarray(row.panels[-1][1])[0] for row in rows[1::-1])
    assert ["".join("." if len(set(pixel)) == 1 else "#" for pixel in one.tolist()) for one in (better, worse)] == [
        "..##....",
        ".#######",
    ]
    assert better[2].tolist() == [0x3F, 0xA7, 0xFF]  # B alone is right
    assert worse[1].tolist() == [0x3F, 0xA7, 0xFF]
    assert worse[2].tolist() == [0xFF, 0xB0, 0x00]  # both are wrong, differently
    assert worse[4].tolist() == [0xFF, 0x4D, 0x4D]  # A alone is right
    assert [name for name, _ in key(found, panels(found, None, 3), None)][3:] == ["car", "road", "sky"]

    sheet, page = tmp_path / "sheet.png", tmp_path / "page.html"
    arguments = ["--resamples", "2", "--panels", "1", "--picture", str(sheet), "--html", str(page)]
    assert main(["compare", *map(str, streets), *arguments]) == 0
    assert f"picture: {sheet}" in capsys.readouterr().err.replace("\n", "")
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    assert page.read_text().count("<img") == 5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "is no map of segments"),
        (lambda path: path.write_bytes(b"\x00" * 9), "is no map of segments"),
        (lambda path: Image.new("L", (SIDE, SIDE)).save(path), "is no map of segments"),
        (lambda path: path.write_bytes((path.parent / "1.png").read_bytes()), "gives other counts"),
        (lambda path: write_map(SegmentMap(np.ones((3, 3), int), {1: 7}), path), "of 3x3 and 8x8 pixels"),
        (lambda path: write_map(SegmentMap(np.ones((8, 8), int), {1: 9}), path), "categories that the data set lacks"),
    ],
    ids=["gone", "cut", "binary", "foreign", "another", "size", "category"],
)
def test_a_map_that_is_not_that_of_the_counts_is_refused(streets, tmp_path, damage, says):
    damage(next((tmp_path / "a").glob("*.maps")) / "4.png")
    with pytest.raises(DataError, match=says) as caught:
        main(["compare", *map(str, streets), "--resamples", "2", "--picture", str(tmp_path / "sheet.png")])
    assert "again" in caught.value.hint or "of it" in caught.value.hint
    assert not (tmp_path / "sheet.png").exists()
    page = tmp_path / "page.html"  # tables are worth a page without pictures
    assert main(["compare", *map(str, streets), "--resamples", "2", "--html", str(page)]) == 0
    assert "No picture is shown" in page.read_text()


@pytest.mark.usefixtures("streets")
def test_a_lost_map_is_made_again(tmp_path):
    lost = next((tmp_path / "a").glob("*.maps")) / "2.png"
    lost.unlink()
    data = read_data(tmp_path / "labels")
    evaluated(data, tmp_path, "a", CITYSCAPES_LABELS, [{"classes": classes((ROAD, 3), (CAR, 5))}])  # one picture alone
    assert lost.is_file()


def test_counts_that_changed_and_old_evaluations_are_refused(streets):
    journal = next((streets[0].parent / "a").glob("*.jsonl"))
    text = json.loads(streets[0].read_text())
    streets[0].write_text(json.dumps({key: value for key, value in text.items() if key != "data_file"}))
    with pytest.raises(
        DataError, match=r"is no evaluation that can be compared \(lacks 'data_file'\) -> evaluate again"
    ):
        read_sides(*streets)
    streets[0].write_text(json.dumps(text))
    journal.write_bytes(journal.read_bytes() + b"\n")
    with pytest.raises(DataError, match="is not what was evaluated any more"):
        read_sides(*streets)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("[7,7,-1]", "has counts below zero"),
        ("[7,7,1e999]", "has rows that are not of 3 numbers"),
        ("[1e99,7,1]", "has rows that are not of 3 numbers"),
        ("[7,7]", "has rows that are not of 3 numbers"),
    ],
)
def test_a_journal_with_impossible_counts_is_refused(streets, row, says):
    journal = next((streets[0].parent / "a").glob("*.jsonl"))
    header, *lines = journal.read_bytes().splitlines(keepends=True)
    text = json.dumps({"image_id": 1, "picture": json.loads(lines[0])["picture"]}).encode()[:-1]
    text += b',"rows":[' + row.encode() + b"]"
    check = hashlib.sha256(header.rstrip() + text).hexdigest()[:16].encode()
    journal.write_bytes(journal.read_bytes() + text + b',"check":"' + check + b'"}\n')
    stored = json.loads(streets[0].read_text()) | {"counts_sha256": sha256_of(journal)}
    streets[0].write_text(json.dumps(stored))
    with pytest.raises(DataError, match=says):
        read_sides(*streets)


@pytest.fixture
def scenes(tmp_path):
    """Two pictures with a cat in the upper left quarter, and sky elsewhere."""
    numbers = np.full((SIDE, SIDE), 2)
    numbers[:4, :4] = 300
    colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 256**2], axis=2).astype(np.uint8)
    for folder in ("panoptic", "images"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        Image.fromarray(colors).save(tmp_path / "panoptic" / f"{number}.png")
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "images" / f"{number}.jpg")
    segments = [{"id": 300, "category_id": 17}, {"id": 2, "category_id": 187, "iscrowd": 0}]
    data = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)],
        "categories": [{"id": 17, "name": "cat", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}],
        "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": segments} for n in (1, 2)],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(data))
    return read_data(tmp_path / "panoptic.json")


def cat(score, right=4):
    return {
        "labels": np.array([[1]]),
        "boxes_xyxy": np.float32([[[0, 0, right, 4]]]),
        "scores": np.float32([[score]]),
        "masks": np.ones((1, 1, 28, 28), np.float32),
        "stuff": np.full((1, SIDE, SIDE), 2, np.int64),
    }


def test_panoptic_quality_and_matched_segments(scenes, tmp_path, capsys):
    """A finds the cat of the first picture, B those of both; the sky is too small a piece to be kept."""
    sides = [
        evaluated(scenes, tmp_path, name, LABELS, [cat(0.9), cat(score)]) for name, score in (("a", 0.1), ("b", 0.9))
    ]
    found = compare_segments(*read_sides(*sides), resamples=50)
    a, b = found.of_category("cat")
    assert b == pytest.approx(a * 1.5), "TP / (TP + FN / 2): 1 / 1.5 and 2 / 2"
    assert found.figure("rq") == (pytest.approx((1 / 1.5) / 2), pytest.approx(1 / 2))
    assert found.differences["pq"].value == pytest.approx((b - a) / 2)
    assert [(one.image_id, one.moved, one.of, one.kind, one.kind_b) for one in found.by_image] == [
        (2, 1, 2, "cat", 1),
        (1, 0, 2, None, 0),
    ]
    assert main(["drift", *map(str, sides[::-1]), "--resamples", "2", "--max-ap-drop", "1"]) == 1
    printed = capsys.readouterr()
    assert "PQ dropped by" in printed.err
    assert "cat: 1 to 0 matched" in printed.out


@pytest.mark.parametrize(
    ("only", "a", "b", "titles"),
    [
        ("fn", cat(0.1), cat(0.9), ["m fp32 (A): 2 missed", "m fp32 (B): 1 missed"]),
        ("fp", cat(0.9), cat(0.9, right=8), ["m fp32 (A): 0 false positives", "m fp32 (B): 1 false positive"]),
    ],
)
def test_panels_of_segments_that_match_none(scenes, tmp_path, only, a, b, titles):
    sides = [evaluated(scenes, tmp_path, name, LABELS, [cat(0.9), one]) for name, one in (("a", a), ("b", b))]
    found = compare_segments(*read_sides(*sides), resamples=2)
    (drawn,) = panels(found, only, 9)
    assert [title for title, _ in drawn.row.panels] == ["picture", "labelled", *titles]
    sheet = tmp_path / "sheet.png"
    assert main(["compare", *map(str, sides), "--resamples", "2", "--only", only, "--picture", str(sheet)]) == 0
    assert sheet.stat().st_size > 500
    with pytest.raises(ConfigError, match="segments have no masks of their own"):
        main(["compare", *map(str, sides), "--resamples", "2", "--only", "masks", "--picture", str(sheet)])


def test_two_that_find_nothing_prove_nothing(scenes, tmp_path):
    sides = [evaluated(scenes, tmp_path, name, LABELS, [cat(0.1)] * 2) for name in "ab"]
    with pytest.raises(DataError, match="neither has a pixel or a segment of any category"):
        main(["drift", *map(str, sides), "--resamples", "2"])


def test_two_models_do_not_drift(scenes, tmp_path):
    sides = [evaluated(scenes, tmp_path, name, LABELS, [cat(0.9)] * 2, model=name) for name in "ab"]
    with pytest.raises(DataError, match="a and b are two models"):
        main(["drift", *map(str, sides), "--resamples", "2"])
