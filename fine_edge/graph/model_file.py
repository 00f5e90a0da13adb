"""Reading ONNX files that nobody vouches for."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from fine_edge.errors import ArtifactError
from fine_edge.files import file_size
from fine_edge.graph.bounds import expansion
from fine_edge.graph.weight_files import extent, external_tensors

MAX_BYTES = 2**31 - 1
"""Protocol buffers hold no message of 2 GiB or more."""

_AGAIN = "export it again, or copy it once more from where it was made"
_NOT_FOR_READERS = "no exporter writes this: do not use a file you did not make"


def read_model(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, with nothing in it trusted.

    Args:
        path: the file.
        weights: load weights that stand in other files; ``False`` only checks that they could be loaded.

    Raises:
        ArtifactError: when it is missing, unreadable, not ONNX, without a graph, or keeps weights in a file
            that is missing, too short or outside its own folder, or has functions that expand without end.
    """
    model = _parse(path, _read_bytes(path))
    reason = _incompleteness(model)
    if reason:
        raise ArtifactError(f"not a usable ONNX model ({reason})", where=path, hint=_AGAIN)
    external = external_tensors(model)
    size = sum(extent(tensor, path)[2] for tensor in external)
    if weights and size > MAX_BYTES:
        raise ArtifactError(
            f"{size / 2**30:.1f} GiB of weights, and this command holds at most 2 GiB of them",
            where=path,
            hint="export the model in FP16, which halves them; graph check and engine build take the file as it is",
        )
    if weights:
        for tensor in external:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def _read_bytes(path: Path) -> bytes:
    size = file_size(path, ArtifactError, hint="" if path.exists() else "python -m fine_edge export MODEL")
    if size > MAX_BYTES:
        raise ArtifactError(
            f"{size / 2**30:.1f} GiB, more than an ONNX file can have",
            where=path,
            hint="write the weights beside it: onnx.save(model, 'm.onnx', save_as_external_data=True)",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror or error})", where=path) from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    if not data:
        raise ArtifactError("the file is empty", where=path, hint=_AGAIN)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ArtifactError(f"not an ONNX file, or a part of one ({error})", where=path, hint=_AGAIN) from error
    if not _is_text(model):
        raise ArtifactError("not an ONNX file (a name in it is not UTF-8 text)", where=path, hint=_AGAIN)
    if reason := expansion(model):
        raise ArtifactError(f"cannot be expanded: {reason}", where=path, hint=_NOT_FOR_READERS)
    return model


def _incompleteness(model: onnx.ModelProto) -> str:
    """Why a message that parsed is no model: protocol buffers read many random bytes without complaint."""
    parts = {
        "IR version": model.ir_version > 0,
        "operator set": any(entry.domain in ("", "ai.onnx") and entry.version > 0 for entry in model.opset_import),
        "nodes": bool(model.graph.node),
        "inputs": bool(model.graph.input),
        "outputs": bool(model.graph.output),
    }
    missing = [name for name, present in parts.items() if not present]
    return f"no {', no '.join(missing)}" if missing else ""


def _is_text(message: Message) -> bool:
    """Whether all strings below ``message`` are UTF-8: protocol buffers hand out others as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING):
            continue
        for item in (value,) if isinstance(value, Message | str | bytes) else value:
            if not (_is_text(item) if isinstance(item, Message) else isinstance(item, str)):
                return False
    return True
