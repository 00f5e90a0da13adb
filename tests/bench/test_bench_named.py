"""Files and models named one by one: measured in the same rounds, whoever made them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper
from runners.engines import write_contract, write_engine
from runners.fake_cuda import COMPUTE_MS, COPY_MS
from runners.fixtures import device  # noqa: F401 - a fixture
from terminal import WIDTHS, assert_fits
from tiny_bench import write_tiny_artifact, write_tiny_onnx

from fine_edge import command
from fine_edge.bench import backends, measure, memory
from fine_edge.bench import device as bench_device
from fine_edge.bench.named import labels
from fine_edge.bench.record import read_record
from fine_edge.bench.table import to_table
from fine_edge.cli.bench import main
from fine_edge.contract import Artifact, contract_path, read_contract
from fine_edge.errors import FineEdgeError
from fine_edge.files import sha256_of

SIDE = 16


@pytest.fixture
def short(monkeypatch):
    """Short slices, and no process for each file's memory."""
    monkeypatch.setattr(backends, "SLICE_MS", 2.0)
    monkeypatch.setattr(bench_device, "SLICE_MS", 1.0)
    monkeypatch.setattr(measure, "WARMUP_MS", 1.0)
    monkeypatch.setattr(memory, "measure_peak_mib", lambda _path, _threads, _shape: 123.0)


def int8_beside(path: Path) -> Path:
    """An INT8 file of another graph in the contract of a tiny artifact: what it says, not what it computes, counts."""
    int8 = path.with_name(f"{path.stem}.int8.onnx")
    write_tiny_onnx(int8, SIDE, seed=7)
    contract = read_contract(contract_path(path))
    files = (*contract.artifacts, Artifact(int8.name, "int8", sha256_of(int8)))
    contract_path(path).write_text(replace(contract, artifacts=files).to_text(), encoding="utf-8")
    return int8


def foreign(path: Path, *inputs: tuple[str, int, list[int | str]]) -> Path:
    """A graph of somebody without a contract, which gives its inputs back."""
    given = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs]
    results = [helper.make_tensor_value_info(f"{name}_out", kind, None) for name, kind, _ in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"], f"/{name}") for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "g", given, results)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


PICTURE = ("x", T.FLOAT, [1, 3, SIDE, SIDE])


@pytest.mark.usefixtures("short")
def test_a_file_its_int8_file_and_one_of_somebody_else_share_their_rounds(tmp_path, capsys):
    path = write_tiny_artifact(tmp_path, "tiny", SIDE)
    int8 = int8_beside(path)
    theirs = foreign(tmp_path / "theirs.onnx", ("x", T.FLOAT, ["n", 3, "h", "w"]))
    out = tmp_path / "r.json"
    # Options may stand between the files.
    assert main([str(path), "--rounds=2", str(int8), "--json", str(out), "--artifacts", str(tmp_path / "a")]) == 0
    record = read_record(out)
    assert [(row.model, row.precision) for row in record.rows] == [("tiny.onnx", None), ("tiny.int8.onnx", "int8")]
    assert (record.precision, record.suite, record.title) == ("fp32", "named", "tiny.onnx and 1 more")
    assert [row.artifact_sha256 for row in record.rows] == [sha256_of(path), sha256_of(int8)]
    assert {len(row.samples_ms) for row in record.rows} == {2}
    assert {row.baseline for row in record.rows} == {"tiny.onnx"}
    assert not (tmp_path / "a").exists()  # no picture that nobody asked for
    for width in WIDTHS:
        assert_fits(to_table(record), width)
    capsys.readouterr()
    assert main([str(theirs), "--rounds=2", f"--input-size={SIDE}", "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)["rows"]
    assert (row["model"], row["params_m"], row["random_weights"]) == ("theirs.onnx", None, False)
    assert row["input_hw"] == [SIDE, SIDE]
    assert "theirs.onnx has no contract: pictures are stretched" in " ".join(printed.err.split())
    assert main(["show", str(out)]) == 0
    assert "INT8 on this CPU is no figure of a Jetson" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(out), str(out)]) == 0
    assert "tiny.int8.onnx" in capsys.readouterr().out


@pytest.mark.usefixtures("short")
def test_grey_pictures_of_somebody_are_noise(tmp_path, capsys):
    path = foreign(tmp_path / "grey.onnx", ("x", T.UINT8, [1, 1, SIDE, SIDE]))
    assert main([str(path), "--rounds=2", "--json"]) == 0
    assert "it is fed with noise" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("short")
def test_an_engine_is_measured_as_it_is(tmp_path, device):  # noqa: F811
    write_contract(tmp_path, "tiny", "0" * 64)
    engine = write_engine(tmp_path)
    out = tmp_path / "r.json"
    assert main([str(engine), "--rounds=2", "--json", str(out)]) == 0
    record = read_record(out)
    assert (record.backend, record.precision, record.rows[0].model) == ("tensorrt", "fp16", engine.name)
    assert record.rows[0].samples_ms == (COPY_MS + COMPUTE_MS + 3 * COPY_MS,) * 2
    assert not device.memory


def test_labels_are_as_short_as_they_can_be():
    paths = [Path("/a/x/m.onnx"), Path("/a/y/m.onnx"), Path("/a/y/n.onnx")]
    assert labels(paths) == ["x/m.onnx", "y/m.onnx", "n.onnx"]


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (None, [], "no such ONNX file"),
        ([PICTURE], ["--suite", "table1"], "--suite: is of a suite"),
        ([PICTURE], ["--precision", "int8"], "--precision: is of a MODEL; a file has its own"),
        ([PICTURE], ["--frame", "32x32"], "--frame: is of a MODEL"),
        ([PICTURE], ["--picture", "p.png"], "--picture: the picture compares targets"),
        ([PICTURE], ["--end-to-end"], "--end-to-end: no file here says how its outputs are decoded"),
        ([PICTURE], ["x.onnx"], "x.onnx: is named twice"),
        ([PICTURE], ["e.engine", "--backend", "ort"], "e.engine: an engine runs in TensorRT"),
        ([PICTURE], ["--input-size", "32"], "has a fixed size"),
        ([("x", T.FLOAT, ["n", 3, "h", "w"])], [], "is dynamic -> --input-size HEIGHTxWIDTH"),
        ([("ids", T.INT64, [1, 8])], [], "takes 'ids' (1, 8), not one picture (1, C, H, W)"),
        ([PICTURE, ("ids", T.INT64, [1, 8])], [], "not one picture"),
        ([("x", T.FLOAT, [4, 3, SIDE, SIDE])], [], "not one picture"),
        ([("x", T.FLOAT, [1, SIDE, SIDE, 3])], [], "not one picture"),
        (b"\x08\x01junk", [], "x.onnx"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(tmp_path, monkeypatch, capsys, inputs, options, words):
    monkeypatch.chdir(tmp_path)
    path = Path("x.onnx")
    if isinstance(inputs, bytes):
        path.write_bytes(inputs)
    elif inputs:
        foreign(path, *inputs)
    assert command.exit_code(main, [str(path), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.splitlines()[-1].startswith("error: ")


@pytest.mark.usefixtures("short")
def test_a_file_of_several_pictures_or_with_its_size_is_refused(tmp_path):
    path = write_tiny_artifact(tmp_path, "tiny", SIDE)
    with pytest.raises(FineEdgeError, match="has its size"):
        main([str(path), "--input-size", "32"])
    contract = read_contract(contract_path(path)).of_batch(4)
    contract_path(path).write_text(contract.to_text(), encoding="utf-8")
    with pytest.raises(FineEdgeError, match="takes 4 pictures at a time"):
        main([str(path)])
