"""An engine for several batches: each inference has its own, and the pictures of a batch stay apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from runners.engines import SIZE, open_ports, plan_bytes, write_contract, write_engine
from runners.fake_cuda import COMPUTE_MS, COPY_MS, GRAPH_MS

from fine_edge.contract import contract_path
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.runners.opened import open_engine
from fine_edge.runners.trt import TrtRunner

BATCHES = (2, 4, 8)


def feed(*values):
    return {"images": np.stack([np.full((3, SIZE, SIZE), value, np.float32) for value in values])}


@pytest.fixture
def engine(tmp_path, device):
    assert device.what() == []
    return write_engine(tmp_path, plan_bytes(ports=open_ports(BATCHES)), options=BuildOptions(batches=BATCHES))


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_each_inference_has_its_own_batch(engine, cuda_graph):
    runner = TrtRunner(engine, cuda_graph=cuda_graph)
    for count in (8, 8, 3, 3, 3, 2, 8):
        values = np.arange(count) / 16
        outputs = runner.run(feed(*values))
        assert (outputs["boxes_xyxy"].shape, outputs["labels"].dtype) == ((count, 4, 4), np.int64)
        assert np.allclose(outputs["scores"], values[:, None])


def test_only_the_pictures_of_the_batch_are_copied(engine, device):
    runner = TrtRunner(engine)
    runner.run(feed(0.5, 0.25))
    device.journal.clear()
    runner.run(feed(0.5, 0.25))
    assert "shape" not in device.what()  # nothing is done again for the same batch
    copied = [entry[2] for entry in device.journal if entry[0] == "h2d"]
    assert copied == [2 * 3 * SIZE * SIZE * 4]
    assert not {"alloc", "pinned"} & set(device.what())


def test_a_graph_is_captured_again_for_another_batch(engine, device):
    runner = TrtRunner(engine, cuda_graph=True)
    device.journal.clear()
    times = [runner.timed(feed(*[0.5] * count)).compute_ms for count in (8, 4, 4, 4, 8)]
    # The first inference of another batch is enqueued, the second one captured.
    assert times == [GRAPH_MS, COMPUTE_MS, GRAPH_MS, GRAPH_MS, COMPUTE_MS]
    assert device.what().count("capture") == 1
    first = device.what().index("graph close")
    assert "stream sync" in device.what()[:first]  # nothing is in flight when a graph goes


def test_a_batch_that_cannot_be_captured_runs_without_and_says_so(engine, device, capsys):
    runner = TrtRunner(engine, cuda_graph=True)
    runner.run(feed(0.5, 0.5))
    device.refuses_capture = True
    assert np.allclose(runner.run(feed(0.5, 0.25))["scores"], [[0.5], [0.25]])
    assert "runs without a CUDA graph" in " ".join(capsys.readouterr().err.split())
    assert not runner.cuda_graph


def test_throughput_with_unlike_batches(engine):
    runner = TrtRunner(engine, cuda_graph=True)
    assert runner.back_to_back([feed(*[0.5] * count) for count in (8, 8, 8, 3, 3, 3, 8)]) == 7
    assert np.allclose(runner.run(feed(0.125, 0.25))["scores"], [[0.125], [0.25]])
    assert set(runner.profile(feed(0.5, 0.5, 0.5), runs=2)) == {"/backbone/conv", "/decoder/attention", "/decoder/box"}
    assert runner.timed(feed(0.5, 0.5, 0.5)).latency_ms == COPY_MS + COMPUTE_MS + 3 * COPY_MS


@pytest.mark.parametrize("count", [1, 9])
def test_a_batch_beyond_the_profile_is_one_line(engine, device, count):
    runner = TrtRunner(engine)
    device.journal.clear()
    with pytest.raises(ArtifactError, match=rf"\({count}, 3, 8, 8\), the engine takes float32 \(2 to 8, 3, 8, 8\)"):
        runner.run(feed(*[0.5] * count))
    assert device.journal == []


def with_contract(tmp_path, options, batches=(1, 4, 8)):
    """An engine of an artifact that takes 1 to 8 pictures."""
    contract = write_contract(tmp_path, "tiny", "0" * 64).of_batches(batches)
    contract_path(tmp_path / "tiny.fp16.onnx").write_text(contract.to_text(), encoding="utf-8")
    return write_engine(tmp_path, plan_bytes(ports=open_ports(BATCHES)), options=options)


@pytest.mark.usefixtures("device")
def test_the_engine_takes_the_part_of_the_contracts_batches_that_it_was_built_for(tmp_path):
    opened = open_engine(with_contract(tmp_path, BuildOptions(batches=BATCHES)))
    assert (opened.contract.batches, opened.contract.batch) == (BATCHES, 8)
    assert [opened.contract.filled(count) for count in (1, 3)] == [2, 3]


@pytest.mark.usefixtures("device")
def test_a_plan_with_other_batches_than_its_manifest_says_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"images \(2 to 8, 3, 8, 8\)"):
        TrtRunner(with_contract(tmp_path, BuildOptions(batches=(1, 4, 8))))


@pytest.mark.usefixtures("device")
def test_a_shape_that_tensorrt_refuses_is_one_line(tmp_path):
    runner = TrtRunner(write_engine(tmp_path, plan_bytes(ports=open_ports(BATCHES))))
    runner._engine.engine._ports["images"]["profile"] = json.loads("[[2, 3, 8, 8], [2, 3, 8, 8], [2, 3, 8, 8]]")
    with pytest.raises(BackendError, match="TensorRT refuses a batch of 3 in images"):
        runner.run(feed(0.5, 0.5, 0.5))
