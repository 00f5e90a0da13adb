"""Annotations and results of other tools, broken in ways that they come in."""

import json

from faults import Fault, check, each

BOX = {"image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20]}
DATA = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}],
    "annotations": [BOX],
    "categories": [{"id": 1, "name": "cell"}],
}
OUTLINE = [[8, 8, 28, 8, 28, 28, 8, 28]]
RUNS = {"size": [48, 64], "counts": [0, 48 * 64]}
FAR = [[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]]


def _scored(annotation=None, found=None, **changes):
    """Arguments that score one detection on one picture, with fields of the annotation and the detection changed."""

    def arguments(folder):
        document = {**DATA, "annotations": [{**BOX, **(annotation or {})}], **changes}
        (folder / "data.json").write_text(json.dumps(document))
        results = [{**BOX, "score": 0.5, **found}] if isinstance(found, dict) else [{**BOX, "score": 0.5}]
        (folder / "found.json").write_text(json.dumps(found if isinstance(found, list) else results))
        return ["--data", str(folder / "data.json"), "--detections", str(folder / "found.json")]

    return arguments


def _frames(*lines):
    """Arguments that score on a folder of VisDrone's files."""

    def arguments(folder):
        (folder / "labels").mkdir()
        (folder / "labels/b.txt").write_text("\n".join(lines))
        (folder / "found.json").write_text("[]")
        return ["--data", str(folder / "labels"), "--detections", str(folder / "found.json")]

    return arguments


def _image(**fields):
    return [{**DATA["images"][0], **fields}]


NO_MASKS = ("warning: masks are not scored: ",)
SCORED, MASKED = ("boxes",), ("boxes", "masks")
FAULTS = [
    Fault("nothing-found", "evaluate", _scored(found=[]), ("found.json", "is empty")),
    Fault("found-elsewhere", "evaluate", _scored(found={"image_id": 2}), ("entry 0 is of image 2",)),
    Fault("found-of-no-kind", "evaluate", _scored(found={"category_id": 9}), ("none of its 1 detections",)),
    Fault("nothing-there", "evaluate", _scored(annotations=[]), ("has nothing to find",)),
    Fault("crowds-alone", "evaluate", _scored({"iscrowd": 1}), ("has nothing to find",)),
    Fault("box-of-five", "evaluate", _scored({"bbox": [1, 2, 3, 4, 5]}), ("annotations[0] cannot be used",)),
    Fault("nan-in-a-crowd", "evaluate", _scored({"bbox": [1, float("nan"), 3, 4], "iscrowd": 1}), ("annotations[0]",)),
    Fault("id-twice", "evaluate", _scored(annotations=[{**BOX, "id": 4}] * 2), ("has the id 4 of another entry",)),
    Fault("line-in-an-id", "evaluate", _scored(found={"image_id": "a\nb"}), (r"image 'a\nb'",)),
    Fault(
        "deeply-nested",
        "evaluate",
        lambda folder: [*_scored()(folder)[:2], "--detections", str(_deep(folder / "deep.json"))],
        ("deep.json", "nested too deeply"),
    ),
    Fault(
        "no-size",
        "evaluate",
        _scored({"segmentation": OUTLINE}, {"segmentation": RUNS}, images=_image(height=-48)),
        NO_MASKS,
        0,
        SCORED,
    ),
    Fault("huge-polygon", "evaluate", _scored({"segmentation": FAR}, {"segmentation": RUNS}), NO_MASKS, 0, SCORED),
    Fault("far-found", "evaluate", _scored({"segmentation": RUNS}, {"segmentation": FAR}), NO_MASKS, 0, SCORED),
    Fault(
        "huge-runs",
        "evaluate",
        _scored({"segmentation": OUTLINE}, {"segmentation": {"size": [2**31, 2**31], "counts": [2**62]}}),
        NO_MASKS,
        0,
        SCORED,
    ),
    Fault("polygon-found", "evaluate", _scored({"segmentation": OUTLINE}, {"segmentation": OUTLINE}), (), 0, MASKED),
    Fault("runs-found", "evaluate", _scored({"segmentation": OUTLINE}, {"segmentation": RUNS}), (), 0, MASKED),
    Fault("frames-of-a-video", "evaluate", _frames("1,0,593,43,9,4,1,4,0,0"), ("b.txt", "has 10 columns", "VID")),
    Fault("mixed-columns", "evaluate", _frames("1,2,3,4,1,4,0,0", "1,2,3,4,1,4,0"), ("line 2 has 7 columns",)),
]


def _deep(path):
    path.write_text("[" * 100_000)
    return path


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)
