"""TensorRT-RTX under TensorRT's name: the path of a Jetson, run for real by NVIDIA's compiler on a CPU.

Builder, network, parser and builder configuration are NVIDIA's own; the configuration is told to compile ahead of
time, since there is no GPU. Only what needs one is made up here: the runtime, which describes the engine that the
environment variable ``SHIM_ENGINE`` (JSON) holds. What TensorRT 10.x has and RTX has no more, weak typing, is put in
place of flags without effect, and told on standard error when it is used.
"""

import json
import os
import sys

import tensorrt_rtx as _rtx
from tensorrt_rtx import *  # noqa: F403 - the very point

__version__ = os.environ.get("SHIM_VERSION", "10.7.0")


_rtx.BuilderFlag.FP16 = _rtx.BuilderFlag.DISABLE_TIMING_CACHE
_rtx.BuilderFlag.OBEY_PRECISION_CONSTRAINTS = _rtx.BuilderFlag.DISABLE_COMPILATION_CACHE
_rtx.IBuilderConfig.int8_calibrator = None
_rtx.ILayer.precision_is_set = False
_rtx.ILayer.set_output_type = lambda layer, index, dtype: sys.stderr.write(
    f"shim: {layer.name} stores output {index} as {dtype}\n"
)
_rtx.ILayer.precision = property(None, lambda layer, value: sys.stderr.write(f"shim: {layer.name} stays {value}\n"))


class Builder(_rtx.Builder):
    """Compiles for SM86 without a GPU."""

    def create_builder_config(self):
        config = super().create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(_rtx.ComputeCapability.SM86, 0)
        return config


class _Inspector:
    def __init__(self, layers):
        self._layers = layers

    def get_engine_information(self, layer_format):
        assert layer_format == _rtx.LayerInformationFormat.JSON
        return self._layers


class _Engine:
    def __init__(self, told):
        self._told = told
        self.num_io_tensors = len(told["tensors"])
        self.num_optimization_profiles = told.get("profiles", 1)
        self.device_memory_size_v2 = told["activation_bytes"]

    def get_tensor_name(self, index):
        return self._told["tensors"][index]["name"]

    def _tensor(self, name):
        return next(tensor for tensor in self._told["tensors"] if tensor["name"] == name)

    def get_tensor_shape(self, name):
        return _rtx.Dims(self._tensor(name)["shape"])

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return [_rtx.Dims(shape) for shape in self._tensor(name)["profile"]]

    def get_tensor_mode(self, name):
        return getattr(_rtx.TensorIOMode, self._tensor(name)["mode"].upper())

    def create_engine_inspector(self):
        return _Inspector(self._told["layers"])


class Runtime:
    """Takes every plan but those that say they are foreign, or that they crash."""

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, plan):
        if plan.startswith(b"crash"):
            os.abort()
        if plan.startswith(b"foreign"):
            self._logger.log(_rtx.Logger.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return _Engine(json.loads(os.environ["SHIM_ENGINE"]))
