"""The kernels compile for Orin (sm_87): by NVRTC, which torch's wheels bring, and by nvcc where there is one.

Nothing runs here; what is read off the PTX is that a wide kernel moves 16 bytes at a time and multiplies in pairs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from modulate_build import SOURCES, TENSORRT

pytestmark = pytest.mark.host

NVCC = [path for path in (shutil.which("nvcc"),) if path]
KERNELS = {
    f"fine::{name}<{kind}, {lanes}u>": (name, kind, lanes)
    for name in ("linear_kernel", "channels_last_kernel")
    for kind, wide in (("__half", 8), ("float", 4))
    for lanes in (wide, 1)
}


def of_nvidia(pattern: str) -> Path:
    """A file of NVIDIA's wheels, whichever release of CUDA they are of."""
    folders = [Path(folder) for folder in importlib.util.find_spec("nvidia").submodule_search_locations]
    found = sorted(file for folder in folders for file in folder.glob(pattern))
    assert found, f"no nvidia/{pattern}: torch's wheels for Linux depend on nvidia-cuda-nvrtc and nvidia-cuda-runtime"
    return found[-1]


class Nvrtc:
    """As much of NVRTC's C interface as a compilation takes."""

    def __init__(self) -> None:
        # NVRTC opens its second library by name, which is found only if it is loaded already.
        self.builtins = ctypes.CDLL(str(of_nvidia("*/lib/libnvrtc-builtins.so.*[0-9]")))
        self.library = ctypes.CDLL(str(of_nvidia("*/lib/libnvrtc.so.*[0-9]")))
        self.include = of_nvidia("*/include/cuda_fp16.h").parent

    def text(self, name: str, program: ctypes.c_void_p) -> bytes:
        """What nvrtcGet<name> gives."""
        size = ctypes.c_size_t()
        assert getattr(self.library, f"nvrtcGet{name}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(self.library, f"nvrtcGet{name}")(program, buffer) == 0
        return buffer.raw

    def compiled(self, source: str, architecture: str) -> tuple[bytes, bytes]:
        """Cubin (of a real architecture) and PTX, all kernels instantiated."""
        program = ctypes.c_void_p()
        created = self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"fine_modulate.cuh", 0, None, None
        )
        assert created == 0
        for kernel in KERNELS:
            assert self.library.nvrtcAddNameExpression(program, kernel.encode()) == 0
        options = [f"--gpu-architecture={architecture}", "--std=c++17", f"--include-path={self.include}"]
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = self.library.nvrtcCompileProgram(program, len(options), array)
        assert status == 0, self.text("ProgramLog", program).decode()
        cubin = self.text("CUBIN", program) if architecture.startswith("sm_") else b""
        return cubin, self.text("PTX", program)


@pytest.fixture(scope="module")
def nvrtc():
    return Nvrtc()


@pytest.fixture(scope="module")
def source():
    return (SOURCES / "fine_modulate.cuh").read_text()


def test_nvrtc_compiles_every_kernel_for_orin(nvrtc, source):
    cubin, _ = nvrtc.compiled(source, "sm_87")
    assert cubin[:4] == b"\x7fELF"
    for name, kind, lanes in KERNELS.values():
        mangled = f"{len(name)}{name}I{'6__half' if kind == '__half' else 'f'}Lj{lanes}E"
        assert mangled.encode() in cubin


def test_wide_kernels_move_16_bytes_and_multiply_in_pairs(nvrtc, source):
    _, ptx = nvrtc.compiled(source, "compute_87")
    bodies = re.split(r"\.entry ", ptx.decode("utf-8", "replace"))[1:]
    assert len(bodies) == len(KERNELS)
    for name, kind, lanes in KERNELS.values():
        mangled = f"{len(name)}{name}I{'6__half' if kind == '__half' else 'f'}Lj{lanes}E"
        (body,) = [body for body in bodies if mangled in body.partition("(")[0]]
        wide_loads = len(re.findall(r"ld\.global\.nc\.v4\.[uf]32", body))
        assert wide_loads == (
            0 if lanes == 1 else 1 if name == "linear_kernel" else 2
        )  # F, and M where it is one token
        assert len(re.findall(r"st\.global\.v4\.[uf]32", body)) == (lanes > 1)
        assert len(re.findall(r"fma\.rn\.f16x2", body)) == (lanes // 2 if kind == "__half" else 0)
        assert "call" not in re.sub(r"//.*", "", body)
        assert ".local" not in body  # no lane spills to memory


@pytest.mark.parametrize("nvcc", NVCC)
def test_nvcc_compiles_kernel_and_launcher_for_orin(nvcc, tmp_path):
    command = [
        nvcc,
        "-std=c++17",
        "-O3",
        "-gencode",
        "arch=compute_87,code=sm_87",
        "-Xcompiler",
        "-Wall,-Wextra,-Werror",
    ]
    done = subprocess.run(
        [*command, "-c", SOURCES / "fine_modulate.cu", "-o", tmp_path / "kernel.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def makefile(*arguments):
    plugins = SOURCES.parent
    return subprocess.run(["make", "-C", plugins, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("nvcc", NVCC)
def test_make_builds_the_library_that_tensorrt_loads(nvcc, tmp_path):
    """That the other one registers itself takes NVIDIA's library to link with, so it is built on the device alone."""
    target = tmp_path / "libfine_modulate_dynamic.so"
    done = makefile(f"NVCC={nvcc}", f"TRT_INCLUDE={TENSORRT}", f"OUT={tmp_path}", target)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NVCC="], "plugins: no nvcc -> install the CUDA toolkit"),
        (["NVCC=true", "TRT_ROOT=/nowhere"], "plugins: no /nowhere/include/NvInfer.h -> apt install libnvinfer-dev"),
    ],
    ids=["nvcc", "headers"],
)
def test_make_says_what_is_missing(arguments, message, tmp_path):
    done = makefile(f"OUT={tmp_path}", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
