"""Pictures, labels and results that are not what they seem."""

import json
import os

from faults import Fault, check, each
from PIL import Image
from tiny_detector import write_detector


def _pipe(folder):
    os.mkfifo(folder / "labels.json")
    return ["--data", str(folder / "labels.json"), "--detections", "x.json"]


def _predict(*names, out="out", more=()):
    """Write these files of this many bytes of one picture, all where it says ``None``, and predict on all by name."""

    def arguments(folder):
        onnx = write_detector(folder / "engines")
        Image.new("RGB", (60, 40), "red").save(folder / "whole.png")
        whole = (folder / "whole.png").read_bytes()
        (folder / "file").write_text("")
        for name, size in names:
            (folder / name).write_bytes(whole[:size] if size is None or size >= 0 else b"%!PS-Adobe-3.0 EPSF-3.0")
        given = [str(folder / name) for name, _ in names]
        return [*given, "--onnx", str(onnx), "--out", str(folder / out), *more]

    return arguments


def _folder(*names):
    def arguments(folder):
        given = _predict()(folder)
        (folder / "in").mkdir()
        for name, data in names:
            (folder / "in" / name).write_bytes((folder / "whole.png").read_bytes() if data is None else data)
        return [str(folder / "in"), *given]

    return arguments


def _looped(folder):
    (folder / "loop").symlink_to("loop")
    return [str(folder / "loop"), *_predict()(folder)]


def _linked_out(folder):
    (folder / "out").symlink_to("nothing")
    return _predict(("a.png", None))(folder)


def _evaluate(change, size=(128, 128)):
    """Two pictures, their labels and a journal that is whole, changed."""

    def arguments(folder):
        onnx = write_detector(folder / "engines")
        (folder / "images").mkdir()
        for number in range(2):
            Image.new("RGB", size, (number, 0, 0)).save(folder / "images" / f"{number}.png")
        data = {
            "images": [{"id": n, "file_name": f"{n}.png", "height": 128, "width": 128} for n in range(2)],
            "annotations": [{"image_id": n, "category_id": 1, "bbox": [64, 64, 64, 64]} for n in range(2)],
            "categories": [{"id": 1, "name": "cat"}],
        }
        given = ["--onnx", str(onnx), "--data", str(folder / "data.json"), "--images", str(folder / "images")]
        (folder / "data.json").write_text(json.dumps(data))
        change(folder)
        return [*given, "--out", str(folder / "out")]

    return arguments


def _journal(make):
    def change(folder):
        from fine_edge.files import sha256_of

        path = folder / "out" / f"tiny.fp32.data.{sha256_of(folder / 'engines' / 'tiny.onnx')[:12]}.jsonl"
        path.parent.mkdir()
        make(path)

    return _evaluate(change)


FAULTS = [
    Fault("labels-are-a-pipe", "evaluate", _pipe, ("labels.json", "not a regular file")),
    Fault(
        "pictures-are-half-as-large", "evaluate", _evaluate(bool, (64, 64)), ("2 of 2", "0.png is 64x64, not 128x128")
    ),
    Fault("journal-is-a-pipe", "evaluate", _journal(os.mkfifo), (".jsonl: not a regular file", "choose another --out")),
    Fault("journal-is-a-folder", "evaluate", _journal(os.mkdir), (".jsonl: not a regular file",)),
    Fault("journal-is-old", "evaluate", _journal(lambda p: p.write_text('{"format": 1}\n')), ("format", "remove it")),
    Fault("journal-is-nested", "evaluate", _journal(lambda p: p.write_text("[" * 99999 + "\n")), ("its first line",)),
    Fault("picture-is-postscript", "predict", _predict(("eps.jpg", -1)), ("eps.jpg", "of no known format")),
    Fault("picture-is-empty", "predict", _predict(("a.jpg", None), ("b.jpg", 0)), ("b.jpg", "cannot be decoded")),
    Fault("picture-is-cut", "predict", _predict(("cut.png", 60)), ("cut.png", "cannot be decoded")),
    Fault("picture-is-a-loop", "predict", _looped, ("loop", "no such image")),
    Fault("folder-is-all-junk", "predict", _folder(("._a.jpg", b"\0"), ("b.png", b"")), ("none of 2 pictures",)),
    Fault(
        "folder-is-part-junk",
        "predict",
        _folder(("._a.jpg", b"\0"), ("b.png", None)),
        ("1 of 2 pictures",),
        1,
        ("cat",),
    ),
    Fault("folder-has-no-picture", "predict", _folder((".DS_Store", b"")), ("the folder holds no image",)),
    Fault("out-is-a-link-to-nothing", "predict", _linked_out, ("out: cannot be written",)),
    Fault("out-is-a-file", "predict", _predict(("a.png", None), out="file"), ("file: cannot be written",)),
    Fault("out-is-below-a-file", "predict", _predict(("a.png", None), out="file/x"), ("cannot be written",)),
    Fault("out-is-too-long", "predict", _predict(("a.png", None), out="o" * 300), ("cannot be written",)),
    *(
        Fault(
            f"threshold-is-{value}",
            "predict",
            _predict(("a.png", None), more=("--threshold", value)),
            ("is not a score",),
        )
        for value in ("nan", "2", "-1", "inf")
    ),
]


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)
