"""Reading of ONNX files from untrusted sources, and of weights that they keep in other files."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from fine_edge.errors import NO_ONNX, ArtifactError
from fine_edge.files import file_size
from fine_edge.graph.runaway import expansion
from fine_edge.graph.walk import tensors_in
from fine_edge.machine import GIB

# Access to weights that an ONNX model keeps in other files, with checks of place and size.

EXPORT_AGAIN = "export it again, or copy it again from the machine that made it"
# The mark of ONNX Runtime for a weight in memory: the offset is then an address in its process.
_IN_MEMORY = "*/_ORT_MEM_ADDR_/*"


def external_tensors(model: onnx.ModelProto) -> list[TensorProto]:
    """Return the constants that are kept in other files."""
    return [tensor for tensor in tensors_in(model) if tensor.data_location == TensorProto.EXTERNAL]


def location_of(tensor: TensorProto) -> str:
    """Return the file that a tensor names, as the model spells it; an empty text when it names none."""
    # Of a repeated key the last value counts, as in ONNX's own reader.
    places = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return places[-1] if places else ""


def outside_folder(location: str) -> bool:
    """Return whether the location of a weight file, as the model spells it, is outside the model's folder."""
    place = Path(location)
    leaves = "\0" in location or "\\" in location or place.is_absolute() or ".." in place.parts
    return not location or leaves or location == _IN_MEMORY


def weight_file(tensor: TensorProto, model_path: Path) -> Path:
    """Return the file that holds a tensor.

    Raises:
        ArtifactError: when it is outside the model's folder, is missing or is no regular file.
    """
    location, folder = location_of(tensor), model_path.parent
    if outside_folder(location) or not (folder / location).resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(
            f"the weight {tensor.name!r} is kept in {location!r}, outside the model's folder",
            where=model_path,
            hint="do not use a file from an untrusted source; save your own with its weights inside",
        )
    file = folder / location
    if not file.exists():
        raise ArtifactError(f"its weight file {location} is missing", where=model_path, hint="copy it beside the model")
    file_size(file, ArtifactError)
    return file


def weight_files(model: onnx.ModelProto, model_path: Path) -> dict[str, Path]:
    """Return every file that the model keeps weights in, by the name that it has in the model.

    Raises:
        ArtifactError: for the reasons of :func:`weight_file`.
    """
    files: dict[str, Path] = {}
    for tensor in external_tensors(model):
        if location_of(tensor) not in files:
            files[location_of(tensor)] = weight_file(tensor, model_path)
    return files


def extent(tensor: TensorProto, model_path: Path) -> tuple[Path, int, int]:
    """Return file, offset and length in bytes of a tensor's data.

    Raises:
        ArtifactError: when offset or length is broken, or the file is too short for them.
    """
    file = weight_file(tensor, model_path)
    try:
        info = ExternalDataInfo(tensor)
        offset, length = int(info.offset or 0), int(info.length or 0)
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"the offset or length of weight {tensor.name!r} is broken ({error})", where=model_path, hint=EXPORT_AGAIN
        ) from error
    size = file.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        what = f"its weight file {location_of(tensor)} is too short: a part is missing"
        raise ArtifactError(what, where=model_path, hint="copy it again from the machine that made it")
    return file, offset, length or size - offset


def external_values(tensor: TensorProto, model_path: Path) -> NDArray[np.generic] | None:
    """Map a tensor of another file into memory; return ``None`` when its bytes do not fit its shape."""
    file, offset, length = extent(tensor, model_path)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        count = prod(tensor.dims)
        if not 0 < count * dtype.itemsize <= length:
            return None
        return np.memmap(file, dtype, "r", offset, (count,))
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


# The largest protocol buffer message: just under 2 GiB.
MAX_BYTES = 2**31 - 1


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
    size = file_size(path, ArtifactError, hint="" if path.exists() else NO_ONNX)
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
