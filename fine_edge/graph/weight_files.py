"""Access to weights that an ONNX model keeps in other files, with checks of place and size."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo

from fine_edge.errors import ArtifactError
from fine_edge.files import file_size
from fine_edge.graph.walk import tensors_in

EXPORT_AGAIN = "export it again, or copy it again from the machine that made it"
_IN_MEMORY = "*/_ORT_MEM_ADDR_/*"
"""The mark of ONNX Runtime for a weight in memory: the offset is then an address in its process."""


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
