"""Building the plugin's sources on a host, and arrays in the layouts that TensorRT knows."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "plugins" / "fine_modulate"
TENSORRT, CUDA = HERE / "tensorrt_interface", HERE / "cuda_interface"
"""Headers typed by hand in the place of NVIDIA's."""
NCHW, NHWC, NHWC8 = range(3)
"""As ``enum class Layout`` has them."""


def load_reference():
    """plugins/fine_modulate/reference.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("fine_modulate_reference", SOURCES / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shared_library(path: Path, *sources: Path, flags=()):
    """Compile C++ with every warning an error."""
    command = [os.environ.get("CXX", "g++"), "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    # What a registered creator is named is up to TensorRT's macro, and nobody reads it.
    command += ["-Wno-unused-variable", *flags, f"-I{TENSORRT}", f"-I{CUDA}", f"-I{SOURCES}"]
    done = subprocess.run([*command, *map(str, sources), "-o", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def load(path: Path):
    return ctypes.CDLL(str(path))


def aligned(array):
    """A copy that starts at a multiple of 16 bytes, as device memory does."""
    room = np.zeros(array.nbytes + 16, np.uint8)
    start = -room.ctypes.data % 16
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def stored(array, layout, filler=0):
    """A (B, C, H, W) array as it lies in memory; padding channels hold ``filler``."""
    if layout == NCHW:
        return aligned(array)
    pad = -array.shape[1] % 8 if layout == NHWC8 else 0
    padded = np.pad(array, ((0, 0), (0, pad), (0, 0), (0, 0)), constant_values=filler)
    return aligned(padded.transpose(0, 2, 3, 1))


def unstored(memory, layout, channels):
    """The way back, (B, C, H, W), and what the padding channels hold."""
    if layout == NCHW:
        return memory, memory[:, :0]
    array = memory.transpose(0, 3, 1, 2)
    return array[:, :channels], array[:, channels:]


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)
