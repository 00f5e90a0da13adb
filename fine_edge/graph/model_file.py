"""Reading ONNX files that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from fine_edge.errors import ArtifactError

MAX_BYTES = 2**31 - 1
"""Protocol buffers hold no message of 2 GiB or more."""

_AGAIN = "export it again, or copy it once more from where it was made"


def read_model(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, with nothing in it trusted.

    Args:
        path: the file.
        weights: load weights that stand in other files; ``False`` only checks that they could be loaded.

    Raises:
        ArtifactError: when it is missing, unreadable, not ONNX, without a graph, or keeps weights in a file
            that is missing, too short or outside its own folder.
    """
    model = _parse(path, _read_bytes(path))
    reason = _incompleteness(model)
    if reason:
        raise ArtifactError(f"not a usable ONNX model ({reason})", where=path, mend=_AGAIN)
    external = [tensor for tensor in tensors_in(model) if tensor.data_location == TensorProto.EXTERNAL]
    size = sum(_check_external(tensor, path) for tensor in external)
    if size > MAX_BYTES:
        raise ArtifactError(f"{size / 2**30:.1f} GiB of weights, more than ONNX tools can hold", where=path)
    if weights:
        for tensor in external:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise ArtifactError("no such file", where=path, mend="python -m fine_edge.export MODEL")
        if not path.is_file():
            raise ArtifactError("not a regular file", where=path, mend="give the .onnx file itself")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ArtifactError(f"{size / 2**30:.1f} GiB, more than an ONNX file can have", where=path)
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror or error})", where=path) from error
    except ValueError as error:  # a name with a zero byte
        raise ArtifactError(f"not a file name ({error})", where=repr(str(path))) from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    if not data:
        raise ArtifactError("the file is empty", where=path, mend=_AGAIN)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ArtifactError(f"not an ONNX file, or a part of one ({error})", where=path, mend=_AGAIN) from error
    if not _is_text(model):
        raise ArtifactError("not an ONNX file (a name in it is not UTF-8 text)", where=path, mend=_AGAIN)
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


def graphs_in(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and, depth first, the graphs inside If, Loop and Scan."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                pending.extend([attribute.g] if attribute.HasField("g") else [])
                pending.extend(attribute.graphs)


def tensors_in(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every constant: initialisers, sparse ones, and tensors in attributes, subgraphs and functions."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in graphs_in(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t


def outside_folder(location: str) -> bool:
    """Whether a weight file's place, as written in the model, leads out of the model's folder."""
    place = Path(location)
    return not location or "\0" in location or "\\" in location or place.is_absolute() or ".." in place.parts


def _check_external(tensor: TensorProto, path: Path) -> int:
    """Check that a tensor's external data can be loaded; its size in bytes."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if outside_folder(location) or not (path.parent / location).resolve().is_relative_to(path.parent.resolve()):
        raise ArtifactError(
            f"the weight {tensor.name!r} is kept in {location!r}, outside the model's folder",
            where=path,
            mend="do not use a file you did not make; else save it with its weights inside",
        )
    file = path.parent / location
    if not file.is_file():
        raise ArtifactError(f"its weight file {location} is missing", where=path, mend="copy it beside the model")
    try:
        info = ExternalDataInfo(tensor)
        offset, length = int(info.offset or 0), int(info.length or 0)
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"the place of weight {tensor.name!r} is broken ({error})", where=path, mend=_AGAIN
        ) from error
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise ArtifactError(f"its weight file {location} is cut", where=path, mend="copy it again")
    return length or file.stat().st_size - offset
