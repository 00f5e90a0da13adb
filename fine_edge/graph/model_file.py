"""Reading of ONNX files from untrusted sources."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from fine_edge.errors import ArtifactError
from fine_edge.files import file_size
from fine_edge.graph.runaway import expansion
from fine_edge.graph.weight_files import EXPORT_AGAIN, extent, external_tensors
from fine_edge.machine import GIB

MAX_BYTES = 2**31 - 1
"""The largest protocol buffer message: just under 2 GiB."""


_UNTRUSTED = "no exporter writes this: do not use a file from an untrusted source"


def read_model(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file and check that it is complete and safe to process.

    Args:
        path: the file.
        weights: load weights from other files; ``False`` only checks that they could be loaded.

    Raises:
        ArtifactError: when the file is missing, unreadable, not ONNX or without a graph, when a file with its weights
            is missing, too short or outside its folder, or when its functions expand without end.
    """
    model = _parse(path, _read_bytes(path))
    reason = _incompleteness(model)
    if reason:
        raise ArtifactError(f"not a usable ONNX model ({reason})", where=path, hint=EXPORT_AGAIN)
    external = external_tensors(model)
    size = sum(extent(tensor, path)[2] for tensor in external)
    if weights and size > MAX_BYTES:
        raise ArtifactError(
            f"{size / GIB:.1f} GiB of weights, and this command holds at most 2 GiB of them",
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
            f"{size / GIB:.1f} GiB, more than an ONNX file can have",
            where=path,
            hint="write the weights beside it: onnx.save(model, 'm.onnx', save_as_external_data=True)",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "check the permissions of the file (ls -l), and copy it again if the disk is damaged"
        raise ArtifactError(f"cannot be read ({error.strerror or error})", where=path, hint=hint) from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    if not data:
        raise ArtifactError("the file is empty", where=path, hint=EXPORT_AGAIN)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ArtifactError(f"not an ONNX file, or a part of one ({error})", where=path, hint=EXPORT_AGAIN) from error
    if not _is_text(model):
        raise ArtifactError("not an ONNX file (a name in it is not UTF-8 text)", where=path, hint=EXPORT_AGAIN)
    if reason := expansion(model):
        raise ArtifactError(f"cannot be expanded: {reason}", where=path, hint=_UNTRUSTED)
    return model


def _incompleteness(model: onnx.ModelProto) -> str:
    """Return which parts a parsed message lacks; protocol buffers parse many random bytes without an error."""
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
    """Return whether all strings of a message are UTF-8; protocol buffers return the others as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING):
            continue
        for item in (value,) if isinstance(value, Message | str | bytes) else value:
            if not (_is_text(item) if isinstance(item, Message) else isinstance(item, str)):
                return False
    return True
