"""What a user gets from ``torch.onnx.export`` alone, with nothing but names given: the yardstick of our own exports."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what torch.onnx remarks on: folded constants, and optional libraries that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export_with_defaults(module: nn.Module, example: Tensor, outputs: Sequence[str], path: Path) -> None:
    """Write ``module(example)`` to an ONNX file as torch.onnx does it unless told otherwise."""
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            module, (example,), input_names=["images"], output_names=list(outputs), verbose=False
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    onnx.save(program.model_proto, path)
