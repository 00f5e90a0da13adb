"""What goes to a board and what may come back, without a connection."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from terminal import WIDTHS, assert_fits
from tiny_detector import open_batch, write_detector

from fine_edge.board.line import read_host, read_ssh
from fine_edge.board.program import AboutBoard, Outputs, key_of, requirements
from fine_edge.board.shipment import _wanted, argument_there, artifact_files, name_there
from fine_edge.cli import board
from fine_edge.errors import ArtifactError, BoardError, ConfigError, DataError, OutputError

_INPUTS = {"images", "data", "onnx", "engine", "weights", "keep_fp32", "recipes", "plugin_library", "detections"}
_NEITHER = {"evaluations", "root", "plan"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch x", "a b", "a\nb", "a\x1bb"])
def test_what_is_no_host_never_reaches_ssh(host):
    with pytest.raises(ConfigError, match="is no host"):
        board.main(["--", host])


def test_hosts_as_ssh_takes_them():
    for host in ("board", "jetson@orin.local", "ssh://jetson@[::1]:2222", "Jetson-42"):
        assert read_host(host) == host


@pytest.mark.parametrize("ssh", ["", "no-such-ssh -p 1", "ssh 'open"])
def test_an_ssh_that_is_not_here(ssh):
    with pytest.raises(ConfigError) as refused:
        read_ssh(ssh)
    assert refused.value.where == "--ssh"


@pytest.mark.parametrize(
    ("path", "there", "argument"),
    [
        ("engines/x.onnx", "work/engines/x.onnx", "engines/x.onnx"),
        ("./a/../b", "work/b", "b"),
        ("-x.png", "work/-x.png", "./-x.png"),
        (".", "work", "."),
        ("../x", "elsewhere{up}/x", "../elsewhere{up}/x"),
        ("/data/val 1", "elsewhere/data/val 1", "../elsewhere/data/val 1"),
    ],
)
def test_places_on_the_board(here, path, there, argument):
    up = here.parent
    assert name_there(Path(path)) == there.format(up=up)
    assert argument_there(Path(path)) == argument.format(up=up)


def test_words_of_the_command_are_kept_but_for_places(here):
    (here / "in").mkdir()
    words = ["predict", str(here / "in"), "--onnx=../x.onnx", "--json", "/out/a.json", "--threshold", "0.5"]
    with pytest.raises(OutputError):  # as the command itself would
        board.read_task([*words[:4], "/proc/a.json"])
    words[4] = str(here / "a.json")
    task = board.read_task(words)
    moved = f"../elsewhere{here.parent}/x.onnx"
    assert task.argv_there() == [
        "predict",
        "in",
        f"--onnx={moved}",
        "--json",
        "a.json",
        "--threshold",
        "0.5",
    ]
    assert [path.name for path in task.outputs.paths] == ["a.json", "predictions", "engines"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "no command for a board"),
        (["bench", "show", "x.json"], "needs no board"),
        (["evaluate", "drift"], "needs no board"),
        (["engine", "inspect", "x"], "needs no board"),
    ],
)
def test_commands_that_are_not_for_a_board(words, said):
    with pytest.raises(ConfigError, match=said):
        board.main(["host", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "--backend", "predict"], "estimates need no board"),
        (["bench", "--suite", "exporters"], "own exporters need PyTorch"),
        (["bench", "--suite", "tablex"], "no suite"),
        (["bench", "--precision", "fp8"], "no precision"),
        (["parity", "rtdetr_r18"], "no PyTorch"),
        (["evaluate", "--data", "x.json", "--images", "x"], "no such file"),
        (["evaluate", "--data", "x.json", "--detections", "y.json"], "without a board"),
        (["evaluate", "--data", "x.json", "--onnx", "x.onnx"], "pictures are missing"),
        (["evaluate", "--data", "a.png", "--images", "a.png"], "give one of"),
        (["predict", "empty", "--onnx", "x.onnx"], "no file that the board"),
        (["predict", "a.png", "--onnx", "none.onnx"], "none.onnx"),
        (["stream", "none.mp4", "--onnx", "x.onnx"], "none.mp4"),
        (["stream", "empty", "--onnx", "x.onnx"], "no file that the board"),
        (["stream", "0", "--onnx", "x.onnx", "--show"], "board's own screen"),
    ],
)
def test_what_a_command_needs_is_checked_here(here, words, said):
    (here / "a.png").touch()
    (here / "empty").mkdir()
    task = board.read_task(words)
    with pytest.raises((ConfigError, DataError, ArtifactError), match=said):
        board.COMMANDS[words[0]].need(task)


def test_files_of_a_stream_are_sent_and_cameras_are_the_boards(here):
    write_detector(here)
    (here.parent / "clip.avi").touch()
    pipeline = "videotestsrc ! appsink"
    words = ["stream", "../clip.avi", "0", "rtsp://h/x", pipeline, "--onnx", "tiny.onnx", "--out", "out"]
    task = board.read_task([*words, "--frames", "9"])
    board.COMMANDS["stream"].need(task)
    clip = f"elsewhere{here.parent}/clip.avi"
    assert sorted(task.shipment.files) == [clip, "work/tiny.contract.json", "work/tiny.onnx"]
    assert task.argv_there() == ["stream", f"../{clip}", *words[2:], "--frames", "9"]
    assert Outputs((Path("out"),)).place("work/out/clip-0.tiny.mp4") == Path("out/clip-0.tiny.mp4")


def test_all_files_of_an_artifact(here):
    onnx = write_detector(here)
    assert [path.name for path in artifact_files(onnx)] == ["tiny.onnx", "tiny.contract.json"]
    onnx.write_bytes(onnx.read_bytes() + b"\x12\x01x")
    with pytest.raises(ArtifactError, match="sha256"):
        artifact_files(onnx)


def test_an_engine_is_built_from_what_is_here_and_its_recipe(here):
    write_detector(here / "engines", name="rtdetr_r18")
    task = board.read_task(["engine", "build", "rtdetr_r18", "--precision", "fp16-weak"])
    board.COMMANDS["engine"].need(task)
    assert sorted(task.shipment.files) == ["work/engines/rtdetr_r18.contract.json", "work/engines/rtdetr_r18.onnx"]
    assert task.shipment.absent == ["work/engines/rtdetr_r18.json"]
    assert task.argv_there() == task.argv


def test_an_open_batch_is_measured_there(here):
    onnx = open_batch(write_detector(here / "engines"), (1, 4, 4))
    task = board.read_task(["bench", str(onnx.relative_to(here)), "--batches", "1,4", "--json", "r.json"])
    board.command_of(task.argv).need(task)
    assert sorted(task.shipment.files) == ["work/engines/tiny.contract.json", "work/engines/tiny.onnx"]
    assert Path("r.json") in task.outputs.paths
    engine = board.read_task(["bench", "engines/x.engine", "--batches=1,2"])
    board.command_of(engine.argv).need(engine)
    assert not engine.shipment.files


def test_an_engine_for_several_batches_is_built_from_its_file(here):
    open_batch(write_detector(here / "engines", name="rtdetr_r18.batch1-8"), (1, 8, 8))
    task = board.read_task(["engine", "build", "rtdetr_r18", "--precision", "fp32", "--batch", "1:8"])
    board.COMMANDS["engine"].need(task)
    assert "work/engines/rtdetr_r18.batch1-8.onnx" in task.shipment.files


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "work/out/../../x.json",
        "work/x.json",
        "work/output/x.json",
        "work/out/x.py",
        "work/out/.bashrc",
        "",
    ],
)
def test_results_go_nowhere_else(here, name):
    outputs = Outputs((Path("out"), here / "a.json"))
    assert outputs.place("work/out/b/x.png") == Path("out/b/x.png")
    assert outputs.place("work/a.json") == here / "a.json"
    with pytest.raises(ValueError, match=r"is the name of no result|is no output"):
        outputs.place(name)


@pytest.mark.parametrize("wanted", [None, 3, [[2, 0]], [[0, 99]], [[-1, 0]], [["x", 0]], [[0]]])
def test_a_board_gets_only_what_it_was_offered(wanted):
    with pytest.raises(BoardError, match="not offered"):
        _wanted({"wanted": wanted}, [("a", 5, "")], "host")


def test_a_command_is_the_same_by_words_and_files():
    keys = {key_of(*of) for of in ((["a", "b"], {}), (["ab"], {}), (["a", "b"], {"x": "1"}), (["b", "a"], {}))}
    assert len(keys) == 4


def test_the_board_installs_what_the_package_imports_and_no_torch():
    names, without = ({Requirement(line).name for line in requirements(device=device)} for device in (True, False))
    assert {"numpy", "onnxruntime", "msgspec", "pycuda", "polygraphy", "opencv-python-headless"} <= names
    assert not {"torch", "fine-edge"} & names, "pip would look for this project on its index"
    assert not {"pycuda", "polygraphy"} & without


def _paths(parser):
    """Names of all options of a parser and its sub-commands that name files or folders."""
    found = set()
    for action in parser._actions:
        if isinstance(action.choices, dict):
            found |= set().union(*map(_paths, action.choices.values()))
        elif action.type is Path:
            found.add(action.dest)
    return found


def test_every_option_with_a_file_is_known_as_going_there_or_coming_back():
    paths = set().union(*(_paths(command.parser()) for command in board.COMMANDS.values()))
    assert paths - _INPUTS - _NEITHER == paths & set(board.OUTPUTS)


def test_the_options_of_this_command_end_at_the_other():
    assert board._split(["--json", "x.json", "host", "--folder", "f", "bench", "--json"]) == (
        ["--json", "x.json", "host", "--folder", "f"],
        ["bench", "--json"],
    )
    assert board._split(["host", "--json"]) == (["host", "--json"], [])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_on_a_board_fits(width):
    about = AboutBoard(
        folder="/home/jetson/.cache/fine_edge",
        python="3.10.12",
        executable="/usr/bin/python3",
        arch="aarch64",
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        l4t="36.4.3",
        tensorrt="10.7.0",
        free_bytes=200 * 2**30,
        fine_edge_sha256=None,
        environments=["env-0123456789abcdef"],
        codes=[],
        artifacts={"engines/rtdetr_r18_fine.fp16.onnx": 44 * 2**20, "engines/rtdetr_r18_fine.fp16.engine": 46 * 2**20},
        results=["0123456789abcdef"],
    )
    assert about.is_device
    text = assert_fits(board._table("jetson@orin.local", about), width)
    assert "200.0 GiB" in text


def test_parity_sends_an_onnx_file_and_compares_it_with_its_golden_outputs(here):
    onnx = write_detector(here)
    task = board.read_task(["parity", onnx.name, "--golden", "--json"])
    board.COMMANDS["parity"].need(task)
    assert f"work/{onnx.name}" in task.shipment.files
    assert task.argv == ["parity", onnx.name, "--golden", "--json"]
