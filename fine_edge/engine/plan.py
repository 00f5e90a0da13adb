"""One way to build a plan through Polygraphy, for TensorRT and for TensorRT-RTX alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def build_plan(onnx_path: Path, create_config: Callable[..., Any]) -> bytes:
    """Compile an ONNX file into a serialised engine, always strongly typed: the graph says what is FP16.

    Args:
        onnx_path: the model.
        create_config: Polygraphy's loader of a builder configuration: ``CreateConfig`` for TensorRT,
            ``CreateConfigRTX`` for TensorRT-RTX.

    Raises:
        polygraphy.exception.PolygraphyException: when the parser or the builder refuses the model; the
            reason is in Polygraphy's log.
    """
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath

    network = NetworkFromOnnxPath(str(onnx_path), strongly_typed=True)
    return bytes(EngineBytesFromNetwork(network, config=create_config)())
