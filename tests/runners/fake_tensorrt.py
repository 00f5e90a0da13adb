"""The part of TensorRT's Python API that the device code calls, on :mod:`fake_cuda`'s device.

A plan is JSON: ports, layers, and which faults to show. The network answers with the mean of its first input in every
output. ``tests/tensorrt_api`` holds the signatures to those of the real 10.7 bindings.
"""

from __future__ import annotations

import enum
import json

import numpy as np
from runners.fake_cuda import COMPUTE_MS, MIB, FakeCuda

__version__ = "10.7.0"


class DataType(enum.Enum):
    FLOAT = "float32"
    HALF = "float16"
    INT32 = "int32"
    INT64 = "int64"
    BF16 = "bfloat16"


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self):
        self.is_initialised = True

    def log(self, severity, msg):
        raise NotImplementedError


class IProfiler:
    def __init__(self):
        self.is_initialised = True

    def report_layer_time(self, layer_name, ms):
        raise NotImplementedError


class Dims:
    """As the real one: a sequence without the methods of a tuple."""

    def __init__(self, shape):
        self._shape = tuple(shape)

    def __len__(self):
        return len(self._shape)

    def __getitem__(self, axis):
        return self._shape[axis]


def nptype(trt_type):
    if trt_type is DataType.BF16:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return np.dtype(trt_type.value).type


def init_libnvinfer_plugins(logger, namespace):
    assert logger.is_initialised
    FakeCuda.device.note("plugins", namespace)
    return True


class Runtime:
    def __init__(self, logger):
        assert logger.is_initialised
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        FakeCuda.device.note("deserialise")
        try:
            return ICudaEngine(json.loads(bytes(serialized_engine)), self._logger)
        except ValueError:
            self._logger.log(Severity.ERROR, "Serialization assertion failed: magic tag does not match")
            self._logger.log(Severity.ERROR, "deserializeCudaEngine: a consequence of the first")
            return None


class ICudaEngine:
    def __init__(self, plan, logger):
        self._plan = plan
        self._logger = logger
        self._ports = {port["name"]: port for port in plan["ports"]}
        FakeCuda.device.free_bytes -= plan["weights_mib"] * MIB

    @property
    def num_io_tensors(self):
        return len(self._ports)

    @property
    def device_memory_size_v2(self):
        return self._plan["activation_mib"] * MIB

    def get_tensor_name(self, index):
        return list(self._ports)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if self._ports[name]["is_input"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return Dims(self._ports[name]["shape"])

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return [Dims(shape) for shape in self._ports[name]["profile"]]

    def get_tensor_dtype(self, name):
        return DataType(self._ports[name]["dtype"])

    def create_execution_context(self):
        if self._plan.get("no_context"):
            self._logger.log(Severity.ERROR, "out of memory")
            return None
        FakeCuda.device.note("context")
        FakeCuda.device.free_bytes -= self._plan["activation_mib"] * MIB
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine):
        self._device = FakeCuda.device
        self._engine = engine
        self._addresses = {}
        self._reports = []
        self._batch = None
        self._flushed = True
        self.profiler = None
        self.enqueue_emits_profile = True
        self.nvtx_verbosity = ProfilingVerbosity.DETAILED

    def __del__(self):
        self._device.journal.append(("context gone",))

    def set_tensor_address(self, name, memory):
        FakeCuda.device.note("bind", name)
        self._addresses[name] = memory
        return name in self._engine._ports

    def set_input_shape(self, name, shape):
        FakeCuda.device.note("shape", name, shape)
        least, _, most = self._engine._ports[name]["profile"]
        self._batch, self._flushed = shape[0], False
        return all(low <= dim <= high for low, dim, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name):
        return Dims([self._batch if dim == -1 else dim for dim in self._engine._ports[name]["shape"]])

    def execute_async_v3(self, stream_handle):
        device, plan = FakeCuda.device, self._engine._plan
        device.note("enqueue", stream_handle)
        if plan.get("cannot_run"):
            self._engine._logger.log(Severity.ERROR, "a kernel is missing")
            return False
        addresses, batch = dict(self._addresses), self._batch
        if device.capturing is not None:
            assert self._flushed, "new shapes must be enqueued once before they are captured"
            if device.refuses_capture:
                self._engine._logger.log(Severity.ERROR, "operation not permitted when stream is capturing")
            device.capturing.append(lambda: self._compute(addresses, batch))
            return not plan.get("cannot_capture")
        self._flushed = True
        self._compute(addresses, batch)
        device.streams[stream_handle].now_ms += COMPUTE_MS
        self._reports = [(layer, 0.5 * number) for number, layer in enumerate(plan["layers"], 1)]
        return True

    def report_to_profiler(self):
        for layer, ms in self._reports:
            self.profiler.report_layer_time(layer, ms)
        return True

    def _compute(self, addresses, batch):
        """Give each picture's mean in all outputs of that picture."""
        assert batch == self._batch, "a graph must not outlive the shapes that it was captured with"
        memory, ports = FakeCuda.device.memory, self._engine._ports
        fed = next(port for port in ports.values() if port["is_input"])
        images = batch or fed["shape"][0]

        def rows(port):
            sizes = [images if dim == -1 else dim for dim in port["shape"]]
            return memory[addresses[port["name"]]].view(port["dtype"])[: np.prod(sizes)].reshape(images, -1)

        means = rows(fed).astype(np.float64).mean(axis=1, keepdims=True)
        for port in ports.values():
            if not port["is_input"]:
                rows(port)[:] = means
