"""``bench --backend trt`` from the command line to the record, on a fake TensorRT and CUDA."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from runners.engines import JETSON, LAYERS, plan_bytes, write_engine
from runners.fake_cuda import COMPUTE_MS, COPY_MS, GRAPH_MS, MIB, FakeCuda
from runners.fixtures import device  # noqa: F401 - a fixture
from tiny_detector import write_detector

from fine_edge.bench import device as bench_device
from fine_edge.bench import measure, prepare, session
from fine_edge.bench.backends import BACKENDS, BenchOptions
from fine_edge.bench.device import trtexec_profile
from fine_edge.bench.record import read_record
from fine_edge.cli import bench as cli
from fine_edge.contract import contract_path, read_contract
from fine_edge.engine.manifest import layers_path
from fine_edge.errors import BackendError
from fine_edge.trtexec.exported import read_profile

LATENCY_MS = COPY_MS + COMPUTE_MS + 3 * COPY_MS
TABLE3 = ["rtdetr_r18", *(f"rtdetr_r18_fine{x}" for x in ("_vanilla", "_window", "_area", "_linear", ""))]


@pytest.fixture
def built(monkeypatch, device):  # noqa: F811 - the fixture
    """Artifacts of three nodes and fake engines for them; gives what was asked to be built."""
    assert device.what() == []
    asked = []

    def export(request, folder):
        path = write_detector(folder, name=request.onnx_name().removesuffix(".onnx"))
        contract = replace(read_contract(contract_path(path)), model=request.model, cost={"params": 1, "flops": 2})
        contract_path(path).write_text(contract.to_text(), encoding="utf-8")
        return path

    def build(onnx_path, options, out):
        contract = read_contract(contract_path(onnx_path))
        asked.append((onnx_path.name, options, out))
        ports = [
            {"name": spec.name, "is_input": spec in contract.inputs, "shape": spec.shape, "dtype": spec.dtype}
            for spec in (*contract.inputs, *contract.outputs)
        ]
        return write_engine(
            out,
            plan_bytes(ports=ports),
            model=contract.model,
            onnx_sha256=contract.artifacts[0].sha256,
            options=options,
        )

    monkeypatch.setattr(prepare, "exported", export)
    monkeypatch.setattr(prepare, "can_export", lambda: True)
    monkeypatch.setattr(session, "require_library", lambda *_arguments, **_options: None)
    monkeypatch.setattr(bench_device, "ensure_engine", build)
    monkeypatch.setattr(cli, "write_picture", lambda _record, path: path.touch())  # see test_render_device.py
    monkeypatch.setattr(measure, "WARMUP_MS", 1.0)
    monkeypatch.setattr(measure, "no_garbage_collection", nullcontext)  # see conftest.py
    monkeypatch.setattr(bench_device, "SLICE_MS", 1.0)
    monkeypatch.setattr(bench_device, "END_TO_END_ROUNDS", 2)
    monkeypatch.setattr(bench_device, "PROFILE_RUNS", 4)
    return asked


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, grey in (("a.png", 51), ("b.png", 204)):
        Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(folder / name)
    return str(folder)


def bench(tmp_path, images, *arguments):
    files = ["--json", str(tmp_path / "r.json"), "--out", str(tmp_path / "e"), "--images", images]
    assert cli.main(["--backend", "trt", *files, *arguments]) == 0
    return read_record(tmp_path / "r.json")


def test_one_command_builds_measures_and_records_table_3(tmp_path, built, images, capsys):
    record = bench(tmp_path, images, "--rounds", "3")
    assert [row.model for row in record.rows] == TABLE3
    assert (record.backend, record.precision, record.rounds, record.cuda_graph) == ("tensorrt", "fp16", 3, False)
    assert record.platform == vars(JETSON)
    assert [name for name, _, _ in built] == [f"{model}.fp16.onnx" for model in TABLE3]
    assert all(out == tmp_path / "e" and options.precision == "fp16" for _, options, out in built)
    for row in record.rows:
        assert row.samples_ms == (LATENCY_MS,) * 3
        assert row.compute_ms == (COMPUTE_MS,) * 3
        assert len(row.end_to_end_ms) == 2  # fewer than rounds: preprocessing dominates it
        assert len(row.throughput) == bench_device.SLICES
        assert row.mem_mib is None
        assert row.state.verdict.stamp == "UNKNOWN"
        assert row.state.energy_mj_per_image is None
        assert len(row.state.snapshots) >= 2
    assert record.rows[0].paper["latency_ms"] == 12.81
    printed = capsys.readouterr()
    assert "rtdetr_r18_fine_linear" in printed.out


def test_stages_from_jpegs_to_detections_take_the_copies_from_events(tmp_path, built, images, monkeypatch):
    monkeypatch.setattr("fine_edge.bench.end_to_end.SLICE_MS", 5.0)
    monkeypatch.setattr(cli, "write_stages", lambda _record, path: path.touch())
    record = bench(tmp_path, images, "--suite", "small", "--rounds", "2", "--end-to-end")
    assert len(built) == 2
    for row in record.rows:
        stages = row.end_to_end
        assert (stages.h2d_ms, stages.compute_ms, stages.d2h_ms) == (
            (COPY_MS,) * 2,
            (COMPUTE_MS,) * 2,
            (3 * COPY_MS,) * 2,
        )
        assert row.end_to_end_ms == stages.after_decode_ms
        assert len(stages.overlapped) == bench_device.SLICES


def test_memory_is_the_engines_and_equal_engines_weigh_the_same(tmp_path, built, images, device):  # noqa: F811
    figures = [row.engine for row in bench(tmp_path, images, "--rounds", "2").rows]
    assert {f.device_delta_mib for f in figures} == {figures[0].device_delta_mib}
    assert 70 < figures[0].device_delta_mib < 71  # weights and activation of the fake, and the buffers
    assert figures[0].activation_mib == 30.0
    assert figures[0].weights_mib == 39.5
    assert (figures[0].kernels, figures[0].fused_attention) == (3, 1)
    assert len(built) == 6
    # The first engine was loaded once more, before all, so that what is loaded once for all is not its own.
    assert device.what().count("deserialise") == len(figures) + 1
    assert device.what().count("open") == device.what().count("close") == 1
    assert not device.memory


@pytest.mark.parametrize(
    ("precision", "onnx"),
    [("fp16", "rtdetr_r50.fp16.onnx"), ("fp16-weak", "rtdetr_r50.onnx"), ("fp32", "rtdetr_r50.onnx")],
)
def test_each_precision_is_built_from_its_graph(tmp_path, built, images, precision, onnx):
    arguments = ["--suite", "table1", "--only", "rtdetr_r50", "--precision", precision, "--rounds", "2"]
    assert bench(tmp_path, images, *arguments).precision == precision
    name, options, _ = built[0]
    assert (name, options.precision) == (onnx, precision)


def test_engines_are_all_built_first_and_one_group_is_loaded_at_a_time(tmp_path, built, images, device, monkeypatch):  # noqa: F811
    loads = []
    load = bench_device.DeviceSetup._load

    def spied(setup, engine, cuda):
        loads.append((engine.name.partition(".")[0], len(built)))
        return load(setup, engine, cuda)

    monkeypatch.setattr(bench_device.DeviceSetup, "_load", spied)
    record = bench(tmp_path, images, "--suite", "table1", "--rounds", "2")
    pairs = [(row.baseline, row.model) for row in record.rows]
    assert len(built) == len(pairs) == 10
    # Each group's baseline is loaded twice, see below.
    assert loads == [(name, 10) for base, name in pairs for name in ([base, name] if base == name else [name])]
    assert (device.what().count("open"), device.what().count("close")) == (5, 5)
    openings = [index for index, what in enumerate(device.what()) if what == "open"]
    closings = [index for index, what in enumerate(device.what()) if what == "close"]
    assert all(closed < opened for closed, opened in zip(closings, openings[1:], strict=False))
    assert len({row.engine.device_delta_mib for row in record.rows}) == 1
    assert all(row.state.verdict.stamp == "UNKNOWN" for row in record.rows)


def test_groups_may_need_unlike_numbers_of_rounds(tmp_path, built, images, monkeypatch):
    lengths = iter([bench_device.Length(rounds, 0.0, 1, 1.0) for rounds in (2, 2, 3)])
    monkeypatch.setattr(bench_device, "length", lambda *_arguments: next(lengths))
    record = bench(tmp_path, images, "--suite", "table1", "--only", "rtdetr*")
    assert [len(row.samples_ms) for row in record.rows] == [2, 2, 3, 3]
    assert record.rounds == 2
    assert len(built) == 4


def test_the_recipe_of_a_model_is_used(tmp_path, built, images):
    (tmp_path / "e").mkdir()
    recipe = {"model": "rtdetr_r18", "build": {"precision": "fp32", "optimization_level": 5}}
    (tmp_path / "e" / "rtdetr_r18.json").write_text(json.dumps(recipe), encoding="utf-8")
    bench(tmp_path, images, "--rounds", "2")
    assert [(o.optimization_level, o.precision) for _, o, _ in built[:2]] == [(5, "fp16"), (3, "fp16")]


def test_a_cuda_graph_and_spinning_reach_the_runner(tmp_path, built, images, device):  # noqa: F811
    record = bench(tmp_path, images, "--rounds", "2", "--cuda-graph", "--spin")
    assert record.cuda_graph
    assert record.rows[0].compute_ms == (GRAPH_MS,) * 2
    assert {entry[1] for entry in device.journal if entry[0] == "event"} == {True}
    assert len(built) == 6


def test_the_time_by_layer_is_written_as_trtexec_writes_it(tmp_path, built, images):
    layers = layers_path(tmp_path / "e" / "rtdetr_r18.fp16.engine")
    layers.parent.mkdir()
    layers.write_text('{"Layers": []}', encoding="utf-8")
    bench(tmp_path, images, "--rounds", "2", "--profile", str(tmp_path / "p"))
    path = tmp_path / "p" / "rtdetr_r18.fp16.engine.profile.json"
    assert read_profile(path) == [(layer, 0.5 * number) for number, layer in enumerate(LAYERS, 1)]
    assert json.loads(path.read_text(encoding="utf-8"))[0] == {"count": 4}
    assert (tmp_path / "p" / layers.name).read_text(encoding="utf-8") == '{"Layers": []}'
    assert len(list((tmp_path / "p").glob("*.profile.json"))) == len(built) == 6


def test_shares_of_layers_add_up():
    count, *layers = trtexec_profile({"a": [1.0, 3.0], "b": [4.0, 4.0]}, 2)
    assert count == {"count": 2}
    assert layers == [
        {"name": "a", "timeMs": 4.0, "averageMs": 2.0, "medianMs": 2.0, "percentage": pytest.approx(100 / 3)},
        {"name": "b", "timeMs": 8.0, "averageMs": 4.0, "medianMs": 4.0, "percentage": pytest.approx(200 / 3)},
    ]


def test_all_is_freed_when_measuring_fails(tmp_path, built, images, device, monkeypatch):  # noqa: F811
    def broken(*_arguments, **_options):
        raise BackendError("the board fell asleep")

    monkeypatch.setattr("fine_edge.bench.session.measure_throughput", broken)
    with pytest.raises(BackendError, match="asleep"):
        bench(tmp_path, images, "--rounds", "2")
    assert not device.memory
    assert device.what()[-1] == "close"
    assert len(built) == 6


def test_all_is_freed_when_a_later_engine_does_not_load(tmp_path, built, images, device, monkeypatch):  # noqa: F811
    first = bench_device.DeviceSetup._load
    loaded = []

    def third_fails(setup, engine, cuda):
        loaded.append(engine)
        if len(loaded) == 3:
            raise BackendError("no memory")
        return first(setup, engine, cuda)

    monkeypatch.setattr(bench_device.DeviceSetup, "_load", third_fails)
    with pytest.raises(BackendError, match="no memory"):
        bench(tmp_path, images, "--rounds", "2")
    assert not device.memory
    assert device.what()[-1] == "close"
    assert len(built) == 6


def test_as_long_as_trtexec_and_longer():
    length = BACKENDS["trt"].length
    assert length(BenchOptions(backend="trt")) == bench_device.Length(662, 10.0, 5, 2000.0)
    assert length(BenchOptions(backend="trt", rounds=50)) == bench_device.Length(50, 0.0, 5, 2000.0)
    assert length(BenchOptions(backend="trt", quick=True)) == bench_device.Length(6, 0.0, 1, 1000.0)


@pytest.mark.usefixtures("device")
def test_a_machine_that_cannot_export_takes_what_was_brought(tmp_path, monkeypatch):
    row = prepare.SuiteRow("rtdetr_r18")
    path = write_detector(tmp_path, name="rtdetr_r18")
    contract = read_contract(contract_path(path))
    options = {"height": 64, "width": 64, "batch": 1, "raw": False, "sampling": "rows"}
    trained = {"weights": {"source": "best.pth", "sha256": "ab" * 32}, "options": options}
    brought = replace(contract, model="rtdetr_r18", made_by=trained)
    contract_path(path).write_text(brought.to_text(), encoding="utf-8")
    monkeypatch.setattr(prepare, "can_export", lambda: False)

    def cannot(_request, _folder):
        raise BackendError("cannot export here")

    monkeypatch.setattr(prepare, "exported", cannot)
    assert prepare.export_row(row, tmp_path, (64, 64)) == path
    with pytest.raises(BackendError, match="cannot export here"):
        prepare.export_row(row, tmp_path, (96, 96))
    contract_path(path).write_text(replace(brought, model="rtdetr_r50").to_text(), encoding="utf-8")
    with pytest.raises(BackendError, match="cannot export here"):
        prepare.export_row(row, tmp_path, (64, 64))
    assert FakeCuda.device.what() == []
    assert MIB == bench_device.MIB
