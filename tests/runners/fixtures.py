"""A Jetson made of fakes, for all tests that run an engine."""

from __future__ import annotations

import sys

import pytest
from runners import fake_tensorrt
from runners.engines import JETSON
from runners.fake_cuda import FakeCuda, FakeDevice

from fine_edge.bench import device as bench_device
from fine_edge.engine import cuda
from fine_edge.runners import trt, trt_engine


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """TensorRT 10.7 on an Orin; gives the device with its journal."""
    fake = FakeDevice()
    monkeypatch.setattr(FakeCuda, "device", fake, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    for module in (cuda, trt, bench_device):
        monkeypatch.setattr(module, "Cuda", FakeCuda)
    for module in (trt, bench_device):
        monkeypatch.setattr(module, "here", lambda: JETSON)
    trt_engine.engine_log.cache_clear()
    yield fake
    trt_engine.engine_log.cache_clear()
