"""Checks of the backends: each runs or compiles the smallest network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from fine_edge import libraries
from fine_edge.doctor.software import Check, get_tensorrt
from fine_edge.engine.cuda import gpu_info
from fine_edge.engine.platform import is_installed
from fine_edge.errors import FineEdgeError
from fine_edge.jetson.board import Board

_TIMEOUT_S = 120.0
_JETPACK_6_IMAGE = "an image for JetPack 6 does not run on 7.2: build docker/Dockerfile.jetson-jp72 (docker/README.md)"
# JetPack and our image put trtexec here, which may not be on PATH.
_TRTEXEC = ("usr/src/tensorrt/bin/trtexec", "opt/tensorrt/bin/trtexec")


def backends(board: Board) -> Iterator[Check]:
    """Yield one check for each backend that this kind of machine can have."""
    yield _tried("onnxruntime", "onnxruntime", _run_onnxruntime, "pip install --force-reinstall onnxruntime")
    hint = "its libraries do not load: check LD_LIBRARY_PATH; in a container --runtime nvidia. " + get_tensorrt(board)
    tensorrt = _tried("tensorrt", "tensorrt", _run_tensorrt, hint)
    # The runtime of containers mounts this library from the board's system, and JetPack 7.2 has it no more.
    is_of_jetpack_6 = "libnvdla_compiler.so" in tensorrt.found
    yield replace(tensorrt, hint=_JETPACK_6_IMAGE) if is_of_jetpack_6 else tensorrt
    if not board.is_jetson:
        yield _tried("tensorrt-rtx", "tensorrt_rtx", _compile, "pip install --force-reinstall 'fine-edge[rtx]'")
        yield _export()
    yield _trtexec(board)


def _tried(name: str, module: str, attempt: Callable[[], str], hint: str) -> Check:
    if not is_installed(module):
        return Check(name, "absent", "not installed")  # the line of the package has the hint
    try:
        return Check(name, "ok", attempt())
    except FineEdgeError as error:
        return Check(name, "fail", error.what, error.hint or hint)
    except Exception as error:  # a broken package may raise anything, and this page must report it
        return Check(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", hint)


def _relu() -> bytes:
    """Return the smallest network worth compiling: a ReLU of 8 values."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "doctor", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _run_onnxruntime() -> str:
    import numpy as np

    session = libraries.onnxruntime().InferenceSession(_relu(), providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": np.full((1, 8), -1.0, dtype=np.float32)})[0]
    if np.any(result):
        raise ValueError("a ReLU of negative numbers is not zero")
    return "ran a network on the CPU"


def _import_alone(module: str) -> str:
    """Import a module in a process of its own and return its version as a sentence."""
    return f"{_python_output(['-c', f'import {module} as m; print(m.__version__)']).split()[-1]} loads"


def _python_output(arguments: list[str]) -> str:
    """Run Python in a process of its own, which a broken library may crash; return the last line it prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise ImportError(last.removeprefix("error: "))
    return done.stdout.strip().splitlines()[-1]


def _run_tensorrt() -> str:
    """Import TensorRT and, where a device answers, build and run an engine."""
    loads = _import_alone("tensorrt")
    try:
        gpu_info()
    except FineEdgeError:
        return loads  # the line of the device has the hint
    return _python_output(["-m", "fine_edge.doctor.self_test"])


def _compile() -> str:
    from fine_edge.engine.inspect import inspect

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.onnx"
        path.write_bytes(_relu())
        inspection = inspect(path, _TIMEOUT_S)
    return f"compiled a network for SM86 ({inspection.compiler})"


def _export() -> Check:
    missing = [name for name in ("torch", "transformers", "safetensors", "onnxscript") if not is_installed(name)]
    if not missing:
        return Check("pytorch export", "ok", "its packages are installed (not imported here)")
    return Check("pytorch export", "absent", f"{', '.join(missing)} missing", "pip install 'fine-edge[export]'")


def _trtexec(board: Board) -> Check:
    on_path = shutil.which("trtexec")
    if on_path:
        return Check("trtexec", "ok", on_path)
    found = next((path for path in _TRTEXEC if (board.root / path).is_file()), None)
    if found:
        return Check("trtexec", "warn", f"/{found} is not on PATH", f"export PATH=$PATH:/{Path(found).parent}")
    return Check("trtexec", "absent", "not on PATH", "optional; it comes with TensorRT" if board.is_jetson else "")
