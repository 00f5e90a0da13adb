"""The ONNX file that a compiler is given: the user's own, or a copy of it in which open dimensions have numbers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from fine_edge.files import output_errors
from fine_edge.graph.input_size import InputSize, fixed, require_static
from fine_edge.graph.model_file import read_model


@contextlib.contextmanager
def sized_file(path: Path, model: onnx.ModelProto, size: InputSize | None) -> Iterator[Path]:
    """Give the file itself where no size is asked for, and else a copy of that size, which is removed afterwards.

    Args:
        path: of the file.
        model: what it holds, with or without weights of other files.
        size: of its pictures.

    Raises:
        ArtifactError: when an input is open and no size is given, or the graph cannot be of that size.
    """
    if size is None:
        require_static(model, path)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with output_errors(copy):
            onnx.save(fixed(read_model(path), size, path), copy)
        yield copy
