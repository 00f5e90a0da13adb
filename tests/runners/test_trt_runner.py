"""The TensorRT runner on a fake device: what it does in which order, and what it refuses."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest
from runners.engines import JETSON, LAYERS, SIZE, plan_bytes, ports, write_contract, write_engine
from runners.fake_cuda import COMPUTE_MS, COPY_MS, GRAPH_MS, MIB, FakeCuda

from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ArtifactError, BackendError, FineEdgeError
from fine_edge.files import sha256_of
from fine_edge.runners.trt import TrtRunner
from fine_edge.runners.trt_engine import engine_log

LATENCY_MS = COPY_MS + COMPUTE_MS + 3 * COPY_MS  # one input, three outputs


def feed(value=0.5, size=SIZE):
    return {"images": np.full((1, 3, size, size), value, np.float32)}


@pytest.fixture
def engine(tmp_path, device):
    assert device.what() == []
    return write_engine(tmp_path)


def test_outputs_are_the_networks_and_stay_valid(engine):
    runner = TrtRunner(engine)
    first, second = runner.run(feed(0.25)), runner.run(feed(0.75))
    assert list(first) == ["labels", "boxes_xyxy", "scores"]
    assert first["boxes_xyxy"].shape == (1, 4, 4)
    assert first["labels"].dtype == np.int64
    assert np.allclose(first["scores"], 0.25)
    assert np.allclose(second["scores"], 0.75)


def test_one_inference_is_one_upload_one_enqueue_and_the_downloads_on_one_stream(engine, device):
    runner = TrtRunner(engine)
    runner.run(feed())
    device.journal.clear()
    runner.run(feed())
    assert device.what() == ["record", "h2d", "record", "enqueue", "record", "d2h", "d2h", "d2h", "record", "sync"]
    assert len({entry[1] for entry in device.journal if len(entry) > 1}) == 1


def test_latency_and_compute_are_told_apart_by_events(engine):
    timing = TrtRunner(engine).timed(feed())
    assert timing.compute_ms == COMPUTE_MS
    assert timing.latency_ms == LATENCY_MS


def test_nothing_is_allocated_after_loading(engine, device):
    runner = TrtRunner(engine)
    device.journal.clear()
    for _ in range(3):
        runner.run(feed())
        runner.timed(feed())
    runner.back_to_back([feed()] * 5)
    assert not {"alloc", "pinned", "stream", "event", "context"} & set(device.what())


@pytest.mark.parametrize("queries", [0, 1, 2, 3, 8])
def test_back_to_back_keeps_two_in_flight_on_three_streams(engine, device, queries):
    runner = TrtRunner(engine)
    device.journal.clear()
    assert runner.back_to_back([feed()] * queries) == queries
    done = device.what()
    assert (done.count("enqueue"), done.count("sync")) == (queries, queries)
    if queries >= 2:
        second_enqueue = [i for i, what in enumerate(done) if what == "enqueue"][1]
        assert "sync" not in done[:second_enqueue]
        streams = {what: {e[1] for e in device.journal if e[0] == what} for what in ("h2d", "enqueue", "d2h")}
        assert all(len(handles) == 1 for handles in streams.values())
        assert len(set.union(*streams.values())) == 3
        assert done.count("wait") == 2 * queries


def test_a_failure_between_queries_leaves_nothing_in_flight(engine, device):
    def feeds():
        yield feed()
        yield feed()
        yield {"other": np.zeros(1)}

    runner = TrtRunner(engine)
    device.journal.clear()
    with pytest.raises(ArtifactError, match="the engine takes images, not other"):
        runner.back_to_back(feeds())
    assert device.what().count("sync") == device.what().count("enqueue") == 2
    assert np.allclose(runner.run(feed(0.125))["scores"], 0.125)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "takes images, not nothing"),
        (feed() | {"mask": np.zeros(1)}, "takes images, not images, mask"),
        (feed(size=SIZE * 2), r"images is float32 \(1, 3, 16, 16\), the engine takes float32 \(1, 3, 8, 8\)"),
        ({"images": feed()["images"].astype(np.float64)}, "images is float64"),
        ({"images": feed()["images"][0]}, "the engine takes float32"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(engine, device, inputs, words):
    runner = TrtRunner(engine)
    device.journal.clear()
    for refused in (runner.run, runner.timed):
        with pytest.raises(ArtifactError, match=words) as caught:
            refused(inputs)
        assert "\n" not in str(caught.value)
    assert not device.journal


def test_close_frees_all_that_was_taken_and_twice_is_harmless(engine, device):
    free = device.free_bytes
    runner = TrtRunner(engine, cuda_graph=True)
    taken = device.what()
    device.journal.clear()
    runner.close()
    runner.close()
    what = device.what()
    assert what.count("stream sync") == 3
    assert (what.count("free"), what.count("free pinned")) == (taken.count("alloc"), taken.count("pinned"))
    assert what.count("graph close") == 2
    order = [what.index(step) for step in ("stream sync", "graph close", "free", "context gone", "close")]
    assert order == sorted(order)
    assert not device.memory
    assert what[-1] == "close"
    assert device.free_bytes == free - 70 * MIB  # the fake engine keeps its weights and activation


def test_a_device_that_has_failed_is_let_go_all_the_same(engine, device):
    runner = TrtRunner(engine, cuda_graph=True)
    device.fails_at = "sync"
    with pytest.raises(BackendError, match="inference failed"):
        runner.run(feed())
    device.fails_at = "stream sync"
    runner.close()
    assert not device.memory
    assert device.what()[-1] == "close"


def test_why_there_was_no_graph_is_no_reason_for_a_later_failure(tmp_path, device):
    device.refuses_capture = True
    runner = TrtRunner(write_engine(tmp_path), cuda_graph=True)
    engine_log().log(engine_log().ERROR, "the second reason")
    runner._engine.engine._plan["cannot_run"] = True
    with pytest.raises(BackendError, match=r"cannot run the engine \(the second reason\)"):
        runner.run(feed())


def test_a_cuda_that_was_given_stays_open(engine):
    cuda = FakeCuda()
    TrtRunner(engine, cuda=cuda).close()
    assert cuda.is_open


@pytest.mark.parametrize("step", ["deserialise", "context", "pinned", "alloc", "event", "h2d", "d2h"])
def test_a_failure_while_loading_frees_what_was_taken(engine, device, step):
    device.fails_at = step
    with pytest.raises(BackendError, match="cannot be loaded"):
        TrtRunner(engine)
    assert not device.memory
    assert device.what().count("pinned") == device.what().count("free pinned")
    assert device.what()[-1] == "close"


def test_a_cuda_graph_replaces_the_enqueueing(engine, device):
    runner = TrtRunner(engine, cuda_graph=True)
    assert runner.cuda_graph
    device.journal.clear()
    timing = runner.timed(feed())
    assert timing.compute_ms == GRAPH_MS
    assert "launch" in device.what()
    assert "enqueue" not in device.what()
    outputs = [runner.run(feed(value))["scores"].mean() for value in (0.25, 0.75)]
    assert np.allclose(outputs, [0.25, 0.75])
    assert runner.back_to_back([feed()] * 3) == 3


@pytest.mark.parametrize("who", ["TensorRT", "CUDA"])
def test_without_a_graph_it_runs_all_the_same_and_says_so(tmp_path, device, capsys, who):
    device.refuses_capture = who == "CUDA"
    engine = write_engine(tmp_path, plan_bytes(cannot_capture=who == "TensorRT"))
    runner = TrtRunner(engine, cuda_graph=True)
    assert not runner.cuda_graph
    assert "runs without a CUDA graph" in capsys.readouterr().err.replace("\n", " ")
    assert np.allclose(runner.run(feed(0.5))["scores"], 0.5)


def test_each_slot_is_run_before_it_is_captured(engine, device):
    TrtRunner(engine, cuda_graph=True)
    what = device.what()
    assert what[: what.index("capture")].count("enqueue") == 2


def test_waiting_sleeps_unless_told_to_spin(engine, device):
    TrtRunner(engine)
    assert {entry[1] for entry in device.journal if entry[0] == "event"} == {False}
    device.journal.clear()
    TrtRunner(engine, spin=True)
    assert {entry[1] for entry in device.journal if entry[0] == "event"} == {True}


@pytest.mark.parametrize(
    "foreign",
    [
        dataclasses.replace(JETSON, tensorrt="10.3.0"),
        dataclasses.replace(JETSON, gpu="NVIDIA RTX A2000", sm=86),
        dataclasses.replace(JETSON, l4t="36.3.0"),
    ],
)
def test_a_foreign_plan_is_never_deserialised(tmp_path, device, foreign):
    with pytest.raises(BackendError, match="was built by"):
        TrtRunner(write_engine(tmp_path, platform=foreign))
    assert "deserialise" not in device.what()
    assert "open" not in device.what()


def test_a_plan_that_its_manifest_does_not_vouch_for_is_never_deserialised(engine, device):
    engine.write_bytes(engine.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="changed or cut"):
        TrtRunner(engine)
    engine.with_name(f"{engine.name}.json").unlink()
    with pytest.raises(ArtifactError, match="no manifest"):
        TrtRunner(engine)
    assert "deserialise" not in device.what()


def test_a_plan_that_tensorrt_refuses_gives_its_first_reason(tmp_path, device):
    engine = write_engine(tmp_path, b"not a plan at all")
    with pytest.raises(BackendError, match=r"refuses the engine \(Serialization assertion failed") as caught:
        TrtRunner(engine)
    assert "a consequence" not in str(caught.value)
    assert "->" in str(caught.value)
    assert device.what()[-1] == "close"


@pytest.mark.usefixtures("device")
def test_no_memory_for_a_context_says_how_much_is_needed(tmp_path):
    with pytest.raises(BackendError, match="30 MiB of device memory"):
        TrtRunner(write_engine(tmp_path, plan_bytes(no_context=True)))


@pytest.mark.usefixtures("device")
def test_an_engine_that_cannot_run_says_why(tmp_path):
    with pytest.raises(BackendError, match=r"cannot run the engine \(a kernel is missing\)"):
        TrtRunner(write_engine(tmp_path, plan_bytes(cannot_run=True)))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shape": [1, 3, 8, 0]}, "only the batch may be open"),
        (
            {"shape": [-1, 3, -1, 8], "profile": [[1, 3, 8, 8], [1, 3, 8, 8], [1, 3, 16, 8]]},
            r"takes \(1, 3, 8, 8\) to \(1, 3, 16, 8\), only the batch",
        ),
        ({"dtype": "bfloat16"}, "numpy has no type for"),
    ],
)
def test_engines_that_cannot_be_fed_are_refused(tmp_path, changed, words):
    first, *rest = ports()
    engine = write_engine(tmp_path, plan_bytes(ports=[first | changed, *rest]))
    with pytest.raises(ArtifactError, match=words):
        TrtRunner(engine)


@pytest.mark.usefixtures("device")
def test_the_contract_decides_the_types_that_callers_see(tmp_path):
    write_contract(tmp_path, "tiny", "0" * 64)
    runner = TrtRunner(write_engine(tmp_path, plan_bytes(ports=ports(dtype="float16"))))
    assert runner.contract.model == "tiny"
    outputs = runner.run(feed(0.5))
    assert outputs["scores"].dtype == np.float32
    assert np.allclose(outputs["scores"], 0.5)
    with pytest.raises(ArtifactError, match="the engine takes float32"):
        runner.run({"images": feed()["images"].astype(np.float16)})


@pytest.mark.usefixtures("device")
def test_without_a_contract_the_engines_own_types_count(tmp_path):
    runner = TrtRunner(write_engine(tmp_path, plan_bytes(ports=ports(dtype="float16"))))
    assert runner.contract is None
    assert runner.run({"images": feed()["images"].astype(np.float16)})["scores"].dtype == np.float16


@pytest.mark.usefixtures("device")
def test_an_engine_that_is_not_what_its_contract_says_is_refused(tmp_path):
    write_contract(tmp_path, "tiny", "0" * 64, size=16)
    with pytest.raises(ArtifactError, match="not its contract's"):
        TrtRunner(write_engine(tmp_path))
    write_contract(tmp_path, "tiny", "1" * 64)
    with pytest.raises(ArtifactError, match="does not speak of the ONNX"):
        TrtRunner(write_engine(tmp_path))


def test_loading_is_weighed(engine):
    runner = TrtRunner(engine)
    buffers = 2 * sum(np.prod(port["shape"]) * np.dtype(port["dtype"]).itemsize for port in ports())
    assert runner.load_cost.plan == engine.stat().st_size
    assert runner.load_cost.device == 70 * MIB + buffers
    assert runner.activation_bytes == 30 * MIB


def test_each_layer_is_timed_in_each_run_in_a_context_of_its_own(engine, device):
    runner = TrtRunner(engine)
    times = runner.profile(feed(), runs=4)
    assert times == {layer: [0.5 * number] * 4 for number, layer in enumerate(LAYERS, 1)}
    assert device.what().count("context") == 2
    assert runner.timed(feed()).compute_ms == COMPUTE_MS


def test_ranges_for_a_profiler_that_nobody_attached_are_off(engine):
    runner = TrtRunner(engine)
    assert runner._engine.context.nvtx_verbosity.name == "NONE"


def test_plugin_libraries_are_loaded_before_the_plan(tmp_path, device, monkeypatch):
    library = tmp_path / "libfine.so"
    library.write_bytes(b"\x7fELF")
    engine = write_engine(tmp_path, options=BuildOptions(plugins=(str(library),)), plugins_sha256=(sha256_of(library),))
    loaded = []
    monkeypatch.setattr(
        "fine_edge.runners.trt_engine.ctypes.CDLL", lambda path, mode: loaded.append((path, mode, device.what()))
    )
    TrtRunner(engine)
    ((path, mode, before),) = loaded
    assert (path, mode) == (str(library), ctypes.RTLD_GLOBAL)
    assert "deserialise" not in before
    assert device.what().index("plugins") < device.what().index("deserialise")


@pytest.mark.usefixtures("device")
def test_a_plugin_library_that_does_not_load_is_one_line(tmp_path):
    library = tmp_path / "libfine.so"
    library.write_bytes(b"not a library")
    engine = write_engine(tmp_path, options=BuildOptions(plugins=(str(library),)), plugins_sha256=(sha256_of(library),))
    with pytest.raises(BackendError, match="plugin library does not load"):
        TrtRunner(engine)


def test_warnings_of_tensorrt_are_remarks(engine, capsys):
    TrtRunner(engine)
    log = engine_log()
    log.log(log.WARNING, "a plan of another device")
    log.log(log.INFO, "chatter")
    assert capsys.readouterr().err.strip() == "TensorRT: a plan of another device"


def test_without_tensorrt_it_is_one_line(tmp_path):
    with pytest.raises(FineEdgeError, match="TensorRT is not on this machine"):
        TrtRunner(write_engine(tmp_path))
