"""Records, layers, boards and names that are not what they seem, and places where nothing can be written."""

import json
import os
from pathlib import Path

from faults import Fault, check, each

from fine_edge.estimate import calibration, device

RESULTS = Path(__file__).parents[2] / "bench" / "results"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"
HALF = "\udcff"


def _record(change=None):
    """A committed record with something changed, as text."""
    data = json.loads((RESULTS / "table7_onnxruntime_x86.json").read_text())
    if change:
        change(data)
    return json.dumps(data)


def _file(text, *options, name="x.json", before=()):
    """Arguments of a command on a file with this text; ``{tmp}`` in options is its folder."""

    def arguments(folder):
        (folder / name).write_text(text)
        return [*before, str(folder / name), *(option.format(tmp=folder) for option in options)]

    return arguments


def _pipe(*before):
    def arguments(folder):
        os.mkfifo(folder / "pipe.json")
        return [*before, str(folder / "pipe.json")]

    return arguments


def _renamed(name):
    """A record whose title, picture and last row are called so."""

    def change(data):
        data.update(title=name, images=[name])
        data["rows"][-1]["model"] = name

    return _record(change)


def _own(path, **changes):
    """A file that comes with the package, changed."""
    return json.dumps(json.loads(path.read_text()) | changes)


def _special(folder):
    (folder / "r.json").write_text(_record())
    os.mkfifo(folder / "page.html")
    return [str(folder / "r.json"), "--html", str(folder / "page.html")]


def _calibrated(**changes):
    def arguments(folder):
        (folder / "c.json").write_text(_own(calibration._FILE, **changes))
        return ["x.onnx", "--calibration", str(folder / "c.json")]

    return arguments


def _device(**changes):
    def arguments(folder):
        (folder / "d.json").write_text(_own(device._FOLDER / "orin-nano-8gb.json", **changes))
        return ["x.onnx", "--device", str(folder / "d.json")]

    return arguments


FAULTS = [
    Fault("record-is-a-pipe", "report", lambda folder: [*_pipe()(folder), "--html", "x.html"], ("not a regular file",)),
    Fault("record-is-endless", "bench", lambda _: ["show", "/dev/zero"], ("/dev/zero: not a regular file",)),
    Fault("record-is-deep", "bench", _file("[" * 200_000, before=["show"]), ("nested too deeply",)),
    Fault(
        "record-has-an-infinite-time",
        "bench",
        _file(_record().replace('"weights_mib": ', '"weights_mib": 1e400, "x": ', 1), before=["show"]),
        ("rows[0].weights_mib", "1000000000000000.0"),
    ),
    Fault("layers-are-a-pipe", "layers", _pipe(), ("not a regular file",)),
    Fault(
        "profile-is-endless",
        "layers",
        _file("{}", "--profile", "/dev/zero", name="e.layers.json"),
        ("/dev/zero", "not a regular file"),
    ),
    Fault(
        "layer-document-is-deep",
        "report",
        lambda folder: [
            *_file(_record(), "--html", "{tmp}/x.html", "--layers")(folder),
            *_file("[" * 200_000, name="l.json")(folder),
        ],
        ("l.json: is no JSON (nested too deeply)",),
    ),
    Fault("calibration-is-a-pipe", "estimate", _pipe("x.onnx", "--calibration"), ("not a regular file",)),
    Fault("calibration-is-beyond-measure", "estimate", _calibrated(rows={"a": 1e300}), ("rows[", "1000000000000000.0")),
    Fault("calibration-predicts-nothing", "estimate", _calibrated(left_out={"a": -1}), ("left_out[", "> -1.0")),
    Fault("device-is-a-pipe", "estimate", _pipe("x.onnx", "--device"), ("not a regular file",)),
    Fault("device-with-a-text-for-a-number", "estimate", _device(lanes="128"), ("lanes: expected float, got str",)),
    Fault("page-in-the-place-of-a-pipe", "report", _special, ("page.html: is no regular file",)),
    Fault("page-below-a-file", "report", _file(_record(), "--html", "{tmp}/x.json/p.html"), ("cannot be written",)),
    Fault("page-in-no-file-system", "report", _file(_record(), "--html", "/proc/none/p.html"), ("cannot be written",)),
    Fault("page-with-an-endless-name", "report", _file(_record(), "--html", "{tmp}/" + "a" * 300), ("too long",)),
    Fault("picture-is-a-folder", "layers", lambda folder: ["x.onnx", "--picture", str(folder)], ("is a folder",)),
    Fault(
        "matrix-below-a-file",
        "matrix",
        _file("", "--json", "{tmp}/x.json/m.json", before=["fcos_r50"]),
        ("cannot be written",),
    ),
    Fault(
        "name-with-escapes",
        "bench",
        lambda _: ["show", f"{ESCAPE}.json"],
        ("\\x1b]0;owned\\x07\\x1b[31m.json: no such",),
    ),
    Fault("name-that-is-no-text", "bench", lambda _: ["show", f"{HALF}.json"], ("\\udcff.json: no such file",)),
    Fault("name-with-zero", "bench", lambda _: ["show", "a\0b"], ("not a file name",)),
    Fault(
        "record-of-escapes", "bench", _file(_renamed(ESCAPE), before=["show"]), (), 0, ("\\x1b]0;owned\\x07\\x1b[31m",)
    ),
    Fault("record-of-halves", "bench", _file(_renamed(HALF), before=["show"]), (), 0, ("\\udcff",)),
    Fault("record-of-markup", "bench", _file(_renamed("[bold]"), before=["show"]), (), 0, ("[bold]",)),
]


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)


def test_names_bring_no_markup_into_pages_pictures_and_tables(tmp_path, capsys):
    name = f"a|b\\|c\n<script>$\\frac$ {HALF}{ESCAPE}"
    (tmp_path / "r.json").write_text(_renamed(name))
    outputs = {option: tmp_path / f"x.{option}" for option in ("csv", "markdown", "picture")}
    arguments = [
        "show",
        str(tmp_path / "r.json"),
        *(part for key, path in outputs.items() for part in (f"--{key}", path)),
    ]
    check(Fault("", "bench", lambda _: [str(part) for part in arguments], (), 0), tmp_path, capsys)
    rows = [line for line in outputs["markdown"].read_text().splitlines() if line.startswith("|")]
    plain = [line.replace("\\\\", "").replace("\\|", "") for line in rows]
    assert len({line.count("|") for line in plain}) == 1
    page = ["report", lambda _: [str(tmp_path / "r.json"), "--html", str(tmp_path / "x.html")]]
    check(Fault("", *page, (), 0), tmp_path, capsys)
    for path in (*outputs.values(), tmp_path / "x.html"):
        if path.suffix != ".picture":
            text = path.read_text(encoding="utf-8")
            assert "\x1b" not in text
            assert "<script>" not in text.replace('"', "") or path.suffix == ".csv"
