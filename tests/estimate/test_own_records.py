"""Calibrating on a user's own records, and on logs of trtexec."""

import json
from dataclasses import replace

import onnx
import pytest
import trtexec_logs as logs
import works
from graph_builders import unary
from onnx import TensorProto as T

from fine_edge.bench.measure import HarnessCost
from fine_edge.bench.record import Record
from fine_edge.bench.row import Row
from fine_edge.bench.sources import read_logs
from fine_edge.cli import estimate as command
from fine_edge.errors import ArtifactError, ConfigError, FineEdgeError
from fine_edge.estimate import records
from fine_edge.estimate.calibration import find_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.records import TimingSource
from fine_edge.estimate.roofline import kernel_times
from fine_edge.files import sha256_of

DEVICE = find_device("orin-nano-8gb")
MODE = DEVICE.mode("25W")
KNOWN = find_calibration(DEVICE)
TRUE = replace(KNOWN.constants, tensor_share=0.75, memory_share=0.8, gather_share=0.2, kernel_clocks=4000.0)


def row(model, sha256, compute_ms, copied_ms):
    """As the bench on a device writes it."""
    return Row(
        model=model,
        attention=None,
        complexity="-",
        params_m=None,
        flops_g=None,
        mem_mib=None,
        weights_mib=1.0,
        rtx=None,
        artifact_sha256=sha256,
        random_weights=True,
        baseline=model,
        input_hw=(640, 640),
        samples_ms=(compute_ms + copied_ms,) * 3,
        throughput=(),
        compute_ms=(compute_ms,) * 3,
    )


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A folder of ONNX files, and a record of what a board of known constants took for them."""
    engines, rows = {}, []
    for name, engine in works.recorded().items():
        path = tmp_path / f"{name}.onnx"
        path.write_text(name)
        engines[path] = engine
        ms = sum(kernel.ms for kernel in kernel_times(engine.works, DEVICE, MODE, TRUE))
        rows.append(row(name, sha256_of(path), ms, engine.io_bytes / 15e6))
    record = Record(
        suite="mine",
        title="Mine",
        backend="tensorrt",
        precision="fp16",
        input_hw=None,
        machine={},
        images=(),
        rounds=3,
        threads=None,
        quick=False,
        measured_at="",
        harness=HarnessCost(0.0, 0.0),
        cuda_graph=True,
        rows=tuple(rows),
    )
    monkeypatch.setattr(records, "read_measurements", lambda _: record)
    monkeypatch.setattr(records, "engine_work", lambda path, *_: engines[path])
    return tmp_path, record


def test_the_constants_of_a_board_are_found(board):
    folder, _ = board
    found = records.calibrate_on_records([TimingSource(folder / "mine.json")], DEVICE, MODE, folder, KNOWN)
    assert found.constants.tensor_share == pytest.approx(0.75, rel=0.02)
    assert found.constants.gate_slots == KNOWN.constants.gate_slots
    assert found.constants.copy_gb_s == pytest.approx(15, rel=0.01)
    assert found.origin == "own records mine.json (14 models)"
    assert found.mode == "25W"
    assert max(map(abs, found.left_out.values())) < 0.02
    assert found.interval("fp16", DEVICE) == pytest.approx((1, 1), abs=0.02)
    assert found.intervals["int8"] == KNOWN.intervals["int8"]


def test_a_file_that_was_not_brought_is_named(board):
    folder, _ = board
    (folder / "yolov8s.onnx").unlink()
    with pytest.raises(ArtifactError, match="the ONNX file of yolov8s is not here"):
        records.calibrate_on_records([TimingSource(folder / "mine.json")], DEVICE, MODE, folder, KNOWN)


def test_three_models_are_too_few(board, monkeypatch):
    folder, record = board
    monkeypatch.setattr(records, "read_measurements", lambda _: replace(record, rows=record.rows[:3]))
    with pytest.raises(ConfigError, match="cannot tell how fast a board is"):
        records.calibrate_on_records([TimingSource(folder / "mine.json")], DEVICE, MODE, folder, KNOWN)


def write_graph(path, half=True, dims=(1, 3, 640, 640)):
    graph = unary("Relu", dims, T.FLOAT16 if half else T.FLOAT)
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "images"
    graph.doc_string = path.stem  # so that no two are the same file
    onnx.save(graph, path)
    return path


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A log and a graph of each model, as the board of known constants would have given them."""
    engines = works.recorded()
    for name, engine in engines.items():
        write_graph(tmp_path / f"{name}.onnx")
        ms = sum(kernel.ms for kernel in kernel_times(engine.works, DEVICE, MODE, TRUE))
        copied_ms = engine.io_bytes / 15e6
        lines = [*logs.device(), *logs.summary(ms + copied_ms, ms, 1000 / ms, copied_ms)]
        logs.write(tmp_path / f"{name}.log", logs.run(lines, f"--loadEngine={name}.engine --fp16 --useCudaGraph"))
    monkeypatch.setattr(records, "engine_work", lambda path, *_: engines[path.stem])
    return tmp_path, list(engines)


def test_logs_with_their_graphs_and_an_imported_record_give_the_same_constants(logged, capsys):
    folder, names = logged
    imported = folder / "imported.json"
    imported.write_text(json.dumps(read_logs([folder / f"{name}.log" for name in names[4:]]).to_json()))
    pairs = [f"{folder / name}.log={folder / name}.onnx" for name in names[:4]]
    graphs = [word for name in names[4:] for word in ("--graph", f"{name}={folder / name}.onnx")]
    out = folder / "mine.json"
    assert command.main(["calibrate", *pairs, str(imported), *graphs, "--mode", "25W", "--out", str(out)]) == 0
    data = json.loads(out.read_text(encoding="utf-8"))
    assert data["constants"]["tensor_share"] == pytest.approx(0.75, rel=0.02)
    assert data["constants"]["copy_gb_s"] == pytest.approx(15, rel=0.01)
    assert data["origin"].startswith("trtexec's figures in ")
    assert data["origin"].endswith("imported.json (14 models)")
    assert "14 models" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{f}/yolov8s.log"], "does not say which graph yolov8s is of -> name it: calibrate LOG=FILE.onnx"),
        (["{f}/yolov8s.log", "--graph", "yolov8s"], "yolov8s is no MODEL=FILE.onnx"),
        (["{f}/yolov8s.log={f}/fp32.onnx"], "computes in FP32, the engine of yolov8s in FP16"),
        (["{f}/yolov8s.log={f}/small.onnx"], "input images is 1x3x320x320, the log of yolov8s is of 1x3x640x640"),
        (["{f}/yolov8s.log={f}/none.onnx"], "no such file"),
        (["{f}/twice.log={f}/yolov8s.onnx"], "holds 2 runs, yolov8s.onnx is the graph of one"),
        (["{f}/15w.log={f}/yolov8s.onnx"], "was measured in 15W, not in 25W"),
        (["{f}/streams.log={f}/yolov8s.onnx"], "is of 4 inferences at a time"),
        (["{f}/build.log={f}/yolov8s.onnx"], "holds builds of engines and no times"),
        (["{f}/desktop.log={f}/yolov8s.onnx"], "is of sm_89, orin-nano-8gb is sm_87"),
        (["{f}/times.json={f}/yolov8s.onnx"], "is what trtexec --exportTimes writes"),
        (["{f}/yolov8s.log={f}/yolov8s.onnx"], "1 measured rows cannot tell how fast a board is"),
    ],
)
def test_what_cannot_calibrate_says_why(logged, arguments, words):
    folder, _ = logged
    text = (folder / "yolov8s.log").read_text(encoding="utf-8")
    write_graph(folder / "fp32.onnx", half=False)
    write_graph(folder / "small.onnx", dims=(1, 3, 320, 320))
    for name, made in {
        "twice.log": text + text,
        "15w.log": text.replace("0.918", "0.612"),
        "streams.log": text.replace("--fp16", "--fp16 --infStreams=4"),
        "build.log": logs.BUILDER,
        "desktop.log": text.replace("8.7", "8.9"),
        "times.json": '[{"computeMs": 1}]',
        "uncopied.log": text.replace("--fp16", "--fp16 --noDataTransfers"),
    }.items():
        logs.write(folder / name, made)
    with pytest.raises(FineEdgeError) as caught:
        command.main(["calibrate", *(part.format(f=folder) for part in arguments), "--mode", "25W"])
    assert words in str(caught.value)
