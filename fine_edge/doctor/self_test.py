"""``python -m fine_edge.doctor.self_test``: build the smallest engine on this machine's GPU, run it, check its result.

It uses all that a detector uses, in a few seconds: parser, builder, manifest, plan, CUDA memory, streams and events.
The doctor starts it in a process of its own, which a broken driver may crash.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from fine_edge import command
from fine_edge.engine.build import obtain_engine
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import BackendError

SHAPE = (1, 3, 8, 8)
# Enough for sums of 192 values in FP32 in any order.
_TOLERANCE = 1e-4


def write_mean(path: Path) -> None:
    """Write an FP32 network that returns the mean of its input."""
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, (1,))
    axes = helper.make_tensor("axes", TensorProto.INT64, (3,), (1, 2, 3))
    node = helper.make_node("ReduceMean", ["images", "axes"], ["mean"], "mean", keepdims=0)
    graph = helper.make_graph([node], "self_test", [images], [mean], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def self_test() -> str:
    """Build, load and run an engine; return a sentence on what worked.

    Raises:
        FineEdgeError: when a step fails, or the engine's result is wrong.
    """
    from fine_edge.runners.trt import TrtRunner

    images = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "self_test.onnx"
        write_mean(path)
        engine = obtain_engine(path, BuildOptions("fp32"), path.parent, skip_preflight=True)
        with contextlib.closing(TrtRunner(engine.path)) as runner:
            found = float(runner.run({"images": images})["mean"][0])
    expected = float(images.mean(dtype=np.float64))
    if not abs(found - expected) <= _TOLERANCE:
        raise BackendError(
            f"an engine returns {found:.6f} for a mean of {expected:.6f}",
            hint="TensorRT or the driver is broken: install both again (docker/README.md)",
        )
    platform = engine.manifest.platform
    return f"built and ran an engine on {platform.gpu} (TensorRT {platform.tensorrt})"


def main(_argv: list[str]) -> int:
    """Run the self-test, print its sentence and return exit code 0."""
    sys.stdout.write(self_test() + "\n")
    return 0


if __name__ == "__main__":
    command.run(main)
