"""Drift: what is paired, lost and new, the gate, and the page."""

import json

import pytest
from data_sets import compare
from PIL import Image
from tiny_detector import write_detector

from fine_edge.cli.evaluate import main
from fine_edge.errors import DataError
from fine_edge.evaluate.drift import drift
from fine_edge.evaluate.drift_page import most_changed, to_html

BOX = [10.0, 10.0, 40.0, 40.0]


@pytest.fixture
def scene(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (100, 80), (50 * number, 90, 120)).save(tmp_path / "images" / f"{number}.png")
    data = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(4)],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": BOX} for n in range(4)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    return tmp_path


def evaluation(scene, capsys, folder, rows):
    """Path of the evaluation of results called m.json: one model's, whatever made it."""
    results = [dict(zip(("image_id", "bbox", "score"), row, strict=True)) | {"category_id": 1} for row in rows]
    (scene / folder).mkdir(exist_ok=True)
    (scene / folder / "m.json").write_text(json.dumps(results))
    arguments = ["--data", scene / "data.json", "--images", scene / "images", "--detections", scene / folder / "m.json"]
    assert main([*map(str, arguments), "--json"]) == 0
    path = scene / folder / "evaluation.json"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def both(scene, capsys):
    """One box moves by 2 px, one scores a little less than the confidence, one is gone, one is as it was."""
    moved = [12.0, 10.0, 40.0, 40.0]
    reference = [(0, BOX, 0.9), (1, BOX, 0.32), (2, BOX, 0.8), (3, BOX, 0.7), (3, [60, 10, 20, 20], 0.1)]
    other = [(0, moved, 0.8), (1, BOX, 0.28), (2, [50.0, 5.0, 30.0, 30.0], 0.6), (3, BOX, 0.7)]
    return evaluation(scene, capsys, "a", reference), evaluation(scene, capsys, "b", other)


def test_what_is_paired_and_what_is_alone(both):
    found = drift(compare(*both, resamples=2))
    assert (found.matched, found.flipped) == (3, 2)
    assert found.flipped_share == pytest.approx(2 / 8)
    assert [(len(image.lost), len(image.new)) for image in found.images] == [(0, 0), (0, 0), (1, 1), (0, 0)]
    assert found.quantiles("distances_px") == pytest.approx((0, 2, 2))
    assert found.quantiles("score_gaps") == pytest.approx((0.04, 0.1, 0.1), abs=1e-6)
    assert [image.image_id for image in most_changed(found, 8)] == [2, 0]
    assert found.ap_drop > 0


def test_an_artifact_does_not_drift_from_itself(both):
    found = drift(compare(both[0], both[0], resamples=2))
    assert (found.matched, found.flipped, found.ap_drop) == (4, 0, 0)
    assert found.quantiles("distances_px") == (0, 0, 0)
    assert "No picture changed by a pixel." in to_html(found, None)


@pytest.mark.parametrize(("limit", "code"), [("0.1", 1), ("100", 0), (None, 0)])
def test_the_gate(both, capsys, limit, code):
    arguments = [*map(str, both), "--resamples", "2", *(("--max-ap-drop", limit) if limit else ())]
    assert main(["drift", *arguments]) == code
    printed = capsys.readouterr()
    assert "3 matched, 2 flipped (25.00% of all)." in printed.out
    assert ("AP dropped by" in printed.err) == bool(code)


def test_a_gain_passes_the_gate(both):
    assert main(["drift", str(both[1]), str(both[0]), "--max-ap-drop", "0", "--resamples", "2"]) == 0


def test_json_has_it_all(both, capsys):
    assert main(["drift", *map(str, both), "--json", "--resamples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)["drift"]
    assert (found["matched"], found["flipped"]) == (3, 2)
    assert found["box_px"] == pytest.approx({"median": 0, "p99": 2, "max": 2})


def test_nothing_found_on_either_side_is_no_pass(scene, capsys):
    nothing = evaluation(scene, capsys, "a", [(0, BOX, 0.01)])
    with pytest.raises(DataError, match=r"neither artifact has a detection with a score of 0\.3 or more"):
        drift(compare(nothing, nothing, resamples=2))


def test_two_models_are_refused(scene, both, capsys):
    (scene / "a" / "m.json").rename(scene / "a" / "n.json")
    arguments = ["--data", scene / "data.json", "--detections", scene / "a" / "n.json", "--json"]
    assert main([*map(str, arguments)]) == 0
    both[0].write_text(capsys.readouterr().out)
    with pytest.raises(DataError, match="n and m are two models"):
        drift(compare(*both, resamples=2))


def test_the_page_shows_what_changed(both, scene):
    assert main(["drift", *map(str, both), "--html", str(scene / "drift.html"), "--resamples", "2"]) == 0
    page = (scene / "drift.html").read_text()
    assert "What changed most" in page
    assert page.count("<img ") == 4
    assert "boxes moved up to 2.0 px" in page


def test_two_artifacts_of_a_detector_through_the_runner(scene, capsys):
    """Another batch size, as a stand-in for another precision: nothing moves."""
    text = (scene / "data.json").read_text().replace('"cat"', '"[owl]"')
    (scene / "data.json").write_text(text)
    paths = []
    for batch in (1, 2):
        onnx = write_detector(scene / f"batch {batch}", batch=batch)
        paths += [f"--onnx={onnx}", f"--data={scene / 'data.json'}", f"--images={scene / 'images'}"]
        assert main([*paths[-3:], f"--out={scene / 'out'}"]) == 0
    first, second = sorted((scene / "out").glob("*.json"))
    capsys.readouterr()
    assert main(["drift", str(first), str(second), "--json", "--resamples", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["a"]["artifact_sha256"] != found["b"]["artifact_sha256"]
    assert (found["drift"]["matched"], found["drift"]["flipped"], found["drift"]["ap_drop"]) == (4, 0, None)
    assert main(["drift", str(first), str(second), "--max-ap-drop", "1", "--resamples", "2"]) == 1
    assert "AP is not defined, at most 1 allowed" in capsys.readouterr().err, "of an AP of 0 nothing can drop"
