"""Two evaluations with masks: figures by masks beside those by boxes, panels of errors, crops, drift of masks."""

import json
from dataclasses import replace

import pytest
from data_sets import compare
from PIL import Image

from fine_edge.cli.evaluate import main
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate.drift import drift
from fine_edge.evaluate.drift_page import to_html
from fine_edge.evaluate.image_pairs import LABELLED, MISSED, WRONG, alone, differing, drawings
from fine_edge.evaluate.journal import Entry, Journal, Outlines
from fine_edge.evaluate.masks import runs
from fine_edge.evaluate.panels import SIDE_PX, crop, crop_title
from fine_edge.files import sha256_of

BOX, FAR = [20, 20, 40, 40], [100, 10, 30, 30]
PICTURES = 4


def mask(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


WHOLE, HALF = mask(*BOX), mask(20, 20, 40, 20)


def found(image, box, outline, score):
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score, "segmentation": outline}


# A outlines half of each object, and sees one thing that is none; B outlines them whole, and misses the last object.
FIRST = [*(found(n, BOX, HALF, 0.9) for n in range(PICTURES)), found(2, FAR, mask(*FAR), 0.85)]
SECOND = [found(n, BOX, WHOLE, 0.9) for n in range(PICTURES - 1)]


@pytest.fixture
def scene(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(PICTURES):
        Image.new("RGB", (160, 90), (40, 90, 120)).save(tmp_path / "images" / f"{number}<i>.png")
    data = {
        "images": [{"id": n, "file_name": f"{n}<i>.png", "width": 160, "height": 90} for n in range(PICTURES)],
        "annotations": [
            {"image_id": n, "category_id": 1, "bbox": BOX, "area": 1600, "segmentation": WHOLE} for n in range(PICTURES)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    return tmp_path


def evaluation(scene, capsys, name, rows):
    (scene / f"{name}.json").write_text(json.dumps(rows))
    arguments = ["--data", scene / "data.json", "--images", scene / "images", "--detections", scene / f"{name}.json"]
    assert main([*map(str, arguments), "--json"]) == 0
    path = scene / f"{name}.evaluation.json"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def both(scene, capsys):
    return evaluation(scene, capsys, "first", FIRST), evaluation(scene, capsys, "second", SECOND)


def test_figures_by_masks_stand_beside_those_by_boxes(both, capsys):
    assert main(["compare", *map(str, both), "--json", "--resamples", "50", "--threshold", "0.8"]) == 0
    got = json.loads(capsys.readouterr().out)
    # Halves reach an IoU of exactly 0.5, the first of ten thresholds.
    assert got["a"]["mask"]["ap"] == pytest.approx(0.1, abs=0.03)
    change = got["mask_difference"]["ap"]
    assert change["value"] == pytest.approx(got["b"]["mask"]["ap"] - got["a"]["mask"]["ap"], abs=1e-9)
    assert change["low"] <= change["value"] <= change["high"]
    assert got["difference"]["ap"]["value"] < 0 < change["value"]
    counts = got["right_and_wrong"]
    assert counts["confidence"] == 0.8
    assert [(one["fp"], one["fn"]) for one in counts["boxes"]["by_image"]] == [
        ([0, 0], [0, 0]),
        ([0, 0], [0, 0]),
        ([1, 0], [0, 0]),
        ([0, 0], [0, 1]),
    ]
    fp = counts["masks"]["difference"]["fp"]
    assert (fp["value"], fp["high"]) == (-1, 0)
    assert -3 <= fp["low"] <= -1
    assert (got["mask_iou"]["a"], got["mask_iou"]["b"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert got["mask_iou"]["difference"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert len(got["mask_iou"]["objects"]) == PICTURES - 1


def test_a_tighter_threshold_counts_fewer_detections(both, capsys):
    assert main(["compare", *map(str, both), "--resamples", "2", "--threshold", "0.88"]) == 0
    printed = capsys.readouterr().out
    assert "at IoU 0.5 and confidence 0.88" in printed
    assert "Right and wrong masks" in printed
    assert "mask AP75" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_one_kind_of_error_is_drawn_over_thin_labels(both):
    comparison = compare(*both, threshold=0.8, resamples=2)
    (image,) = differing(comparison, "fp")
    assert (image.image_id, image.fewer("fp"), image.fewer("fn")) == (2, 1, 0)
    sides = alone(comparison, image, "fp")
    assert [(len(one.right), len(one.wrong), len(one.missed), len(one.labelled)) for one in sides] == [
        (0, 1, 0, 1),
        (0, 0, 0, 1),
    ]
    a, b = drawings(comparison, 2, *sides)
    colours = [tuple(bytes.fromhex(one[1:])) for one in (LABELLED, WRONG, MISSED)]
    assert (a.getpixel((20, 50)), a.getpixel((21, 50))) == (colours[0], (40, 90, 120)), "labels are one pixel wide"
    assert (a.getpixel((101, 25)), b.getpixel((101, 25))) == (colours[1], (40, 90, 120))
    (image,) = differing(comparison, "fn")
    _, b = drawings(comparison, 3, *alone(comparison, image, "fn"))
    assert b.getpixel((21, 50)) == colours[2]


def test_a_crop_shows_the_three_masks_magnified(both):
    comparison = compare(*both, resamples=2)
    found = crop(comparison, comparison.mask_changes.objects[0])
    assert crop_title(comparison, found) == ("0<i>.png", "labelled: cat", "first: IoU 0.50", "second: IoU 1.00")
    assert found.picture.size == (SIDE_PX, SIDE_PX * 90 // 160 + 1)
    assert found.labelled.size == found.a.size == found.b.size == (SIDE_PX, SIDE_PX)
    low, high = (SIDE_PX // 2, SIDE_PX * 5 // 7), (SIDE_PX // 2, SIDE_PX // 3)
    bare = (40, 90, 120)
    assert [one.getpixel(low) == bare for one in (found.labelled, found.a, found.b)] == [False, True, False]
    assert found.a.getpixel(high) != bare
    assert found.a.getpixel((3, 3)) == bare, "there is a margin around the object"


@pytest.mark.parametrize(("only", "rows"), [("fp", 1), ("fn", 1), ("masks", 2)])
def test_a_sheet_holds_at_most_so_many_rows(both, scene, only, rows, capsys):
    path, page = scene / "sheet.png", scene / "page.html"
    drawn = ["--only", only, "--picture", path, "--html", page, "--panels", "2", "--threshold", "0.8"]
    assert main(["compare", *map(str, [*both, *drawn]), "--resamples", "2"]) == 0
    with Image.open(path) as sheet:
        across, height = (160, 90) if only != "masks" else (SIDE_PX, SIDE_PX)
        assert sheet.width >= 2 * across
        assert rows * height < sheet.height < (rows + 1) * height + 60
    text = page.read_text()
    assert text.count("repeat(4, 1fr)") == 2
    assert ("1 false positive" in text, "1 missed" in text) == (only == "fp", only != "fp")
    assert "&lt;i&gt;.png" in text
    assert "<i>" not in text
    assert capsys.readouterr().err.count("sheet.png") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--picture", "x.png"], "--picture: nothing says what to draw -> add --only"),
        (["--only", "fp"], "--only: draws nothing without a file"),
    ],
)
def test_what_is_drawn_and_where_go_together(both, arguments, says):
    with pytest.raises(ConfigError, match=says):
        main(["compare", *map(str, both), *arguments])


@pytest.mark.parametrize("arguments", [["--threshold", "1.5"], ["--threshold", "nan"], ["--panels", "1000"]])
def test_thresholds_and_panels_have_bounds(both, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, both), *arguments])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err


def without_masks(rows):
    return [{key: value for key, value in row.items() if key != "segmentation"} for row in rows]


def test_detections_that_were_kept_without_masks_are_named(both, scene, capsys):
    bare = evaluation(scene, capsys, "bare", without_masks(SECOND))
    comparison = compare(both[0], bare, resamples=2)
    assert comparison.kinds == ("bbox",)
    warned = capsys.readouterr().err
    assert "boxes alone are compared: bare.evaluation.json holds no masks -> evaluate instance" in " ".join(
        warned.split()
    )
    with pytest.raises(DataError, match="have no masks that can be compared -> evaluate instance segmentation"):
        main(["compare", *map(str, (both[0], bare)), "--resamples", "2", "--only", "masks", "--picture", "x.png"])


@pytest.mark.parametrize(
    "hostile",
    [
        {"size": [90, 160], "counts": [2**62]},
        {"size": [2**31, 2**31], "counts": [2**62]},
        {"size": [90, 160], "counts": "oooooooooooo0"},
        [[0, 0, 1e9, 0, 1e9, 1e9]],
    ],
)
def test_a_mask_that_cannot_be_used_leaves_the_boxes(both, scene, capsys, hostile):
    odd = evaluation(scene, capsys, "odd", [*SECOND[1:], {**SECOND[0], "segmentation": hostile}])
    comparison = compare(both[0], odd, resamples=2)
    assert comparison.kinds == ("bbox",)
    assert "boxes alone are compared" in capsys.readouterr().err
    one_model = replace(comparison, b=replace(comparison.b, evaluation=comparison.a.evaluation))
    with pytest.raises(DataError, match="the masks cannot be compared -> correct what the warning names"):
        drift(one_model)


def test_a_mask_of_another_size_than_the_picture_is_not_drawn(both, scene, capsys):
    """It overlaps nothing, so that it is no object that both find."""
    small = {"size": [9, 16], "counts": [0, 144]}
    odd = evaluation(scene, capsys, "odd", [{**row, "segmentation": small} for row in SECOND])
    comparison = compare(both[0], odd, resamples=2)
    assert comparison.mask_changes.objects == ()
    assert comparison.b.errors("segm").tp == 0
    assert comparison.b.errors("bbox").tp == PICTURES - 1


def journal_of(scene, evaluated, categories, outlines):
    """Let an evaluation name a journal, as the evaluation of a model does: boxes of all pictures, with these masks."""
    path = scene / "kept.jsonl"
    path.unlink(missing_ok=True)
    with Journal(path, {}) as journal:
        for number in range(PICTURES):
            rows = tuple((category, *BOX, 0.9) for category in categories)
            journal.add(Entry(number, "ab" * 32, rows, outlines=outlines))
    named = {"detections_file": str(path), "detections_sha256": sha256_of(path)}
    evaluated.write_text(json.dumps(json.loads(evaluated.read_text()) | named))
    return evaluated


def test_masks_of_a_journal_are_compared(both, scene, capsys):
    """Such as they are: whole, of nothing found, lost, not of the data set's categories."""
    whole = Outlines((90, 160), (runs(WHOLE, (90, 160))["counts"],))
    comparison = compare(both[0], journal_of(scene, both[1], [1], whole), resamples=2)
    assert comparison.b.errors("segm").tp == PICTURES
    nothing = compare(both[0], journal_of(scene, both[1], [], Outlines((90, 160), ())), resamples=2)
    assert (nothing.kinds, nothing.figures("ap", "segm")[1]) == (("bbox", "segm"), 0)
    assert nothing.errors["segm"]["fn"].value == nothing.a.errors("segm").tp
    assert compare(both[0], journal_of(scene, both[1], [1], None), resamples=2).kinds == ("bbox",)
    assert "second.evaluation.json holds no masks" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"kept\.jsonl: has detections of categories that data\.json does not list"):
        compare(both[0], journal_of(scene, both[1], [5], whole), resamples=2)


def drifting(scene, capsys, folder, rows):
    (scene / folder).mkdir()
    return evaluation(scene, capsys, f"{folder}/m", rows)


def test_masks_that_drift_fail_the_gate_though_boxes_do_not(scene, capsys):
    whole = [found(n, BOX, WHOLE, 0.9) for n in range(PICTURES)]
    sides = [drifting(scene, capsys, "a", whole), drifting(scene, capsys, "b", FIRST[:PICTURES])]
    assert main(["drift", *map(str, sides), "--max-ap-drop", "0.1", "--resamples", "2", "--json"]) == 1
    got = json.loads(capsys.readouterr().out)["drift"]
    assert got["ap_drops"]["boxes"] == 0
    assert got["ap_drop"] == got["ap_drops"]["masks"] > 80
    assert got["mask"] == pytest.approx({"median": 0.5, "p99": 0.5, "max": 0.5})
    assert main(["drift", *map(str, sides[:1] * 2), "--max-ap-drop", "0", "--resamples", "2"]) == 0
    assert "mask (1 - IoU)" in capsys.readouterr().out
    changed, same = (to_html(drift(compare(sides[0], other, resamples=2)), None) for other in sides[::-1])
    assert changed.count("boxes moved up to 0.0 px, masks changed up to 0.50 (1 - IoU)") == 2 * PICTURES
    assert "No picture changed by a pixel, no mask by 0.1 (1 - IoU)." in same
    bare = drifting(scene, capsys, "c", without_masks(whole))
    with pytest.raises(DataError, match="the other artifact has no masks"):
        drift(compare(sides[0], bare, resamples=2))
