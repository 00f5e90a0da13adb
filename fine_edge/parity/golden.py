"""Read golden files: inputs, and the outputs of the library's own model for them, stored by an export.

Their arrays are checked against the contract, by name, type and shape, before any of their contents are unpacked.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.files import file_size, sha256_of
from fine_edge.runners.base import Array

MOST_CASES = 64
_LONGEST_HEADER = 4096
_INPUT = "images"
_MARGIN = "selection_margin"
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HINT = "copy it with the ONNX file, or export again"
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, OSError, RuntimeError, EOFError, KeyError, SyntaxError)


@dataclass(frozen=True)
class GoldenCase:
    """One input, its expected outputs, and the margin by which its queries were selected."""

    name: str
    images: Array
    outputs: dict[str, Array]
    selection_margin: float


def read_golden(contract: Contract, artifact: Artifact, onnx_path: Path) -> list[GoldenCase]:
    """Read the golden file of an artifact.

    Args:
        contract: of the artifact.
        artifact: names the file, or its contract does.
        onnx_path: the artifact's ONNX file, beside which the golden file lies.

    Raises:
        ArtifactError: when the file is missing, changed or broken, or an array is not finite or not as in the contract.
    """
    golden = contract.golden_of(artifact)
    if not golden:
        raise ArtifactError("its contract names no golden file", where=onnx_path, hint="export the model again")
    path = onnx_path.with_name(golden["file"])
    if path.exists():
        file_size(path, ArtifactError)
    if not path.exists() or sha256_of(path) != golden["sha256"]:
        raise ArtifactError("the golden file is missing or not the one the contract names", where=path, hint=_HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            return _cases(archive, contract)
    except ArtifactError as error:
        raise ArtifactError(f"the golden file {error.what}", where=path, hint=_HINT) from error
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ArtifactError(f"the golden file cannot be read ({reason})", where=path, hint=_HINT) from error


def _cases(archive: zipfile.ZipFile, contract: Contract) -> list[GoldenCase]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in members:
            raise ArtifactError(f"holds {info.filename!r} twice")
        members[info.filename] = info
    names = [name.removesuffix(f"/{_INPUT}.npy") for name in members if name.endswith(f"/{_INPUT}.npy")]
    wanted = {spec.name for spec in contract.outputs}
    missing = [
        f"{name}/{output}" for name in names for output in sorted(wanted) if f"{name}/{output}.npy" not in members
    ]
    if missing or not names:
        raise ArtifactError(f"lacks {', '.join(missing[:3]) or 'its inputs'}")
    if len(names) > MOST_CASES:
        raise ArtifactError(f"holds {len(names)} inputs, at most {MOST_CASES} are read")
    return [_case(archive, members, name, contract) for name in names]


def _case(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, contract: Contract
) -> GoldenCase:
    images = _array(archive, members[f"{name}/{_INPUT}.npy"], contract.inputs[0])
    outputs = {spec.name: _array(archive, members[f"{name}/{spec.name}.npy"], spec) for spec in contract.outputs}
    margin = members.get(f"{name}/{_MARGIN}.npy")
    value = float("inf")  # where no queries are selected
    if margin:
        value = float(_array(archive, margin, TensorSpec(_MARGIN, "float64", (), "gap"), finite=False))
    if np.isnan(value):
        raise ArtifactError(f"holds NaN in {name}/{_MARGIN}")
    return GoldenCase(name, images, outputs, value)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, spec: TensorSpec, *, finite: bool = True) -> Array:
    """Read one array after its header has matched ``spec``; no more is unpacked than such an array takes."""
    dtype = np.dtype(spec.dtype)
    size = prod(spec.shape) * dtype.itemsize
    if info.compress_type not in _PACKED or info.flag_bits & 1:
        raise ArtifactError(f"holds {info.filename!r} packed in a way that is not read")
    if not size < info.file_size <= size + _LONGEST_HEADER:
        raise ArtifactError(
            f"holds {info.file_size} bytes for {info.filename!r}, {spec.dtype} {spec.shape} takes {size}"
        )
    with archive.open(info) as member:
        data = io.BytesIO(member.read(size + _LONGEST_HEADER + 1))
    version = npy.read_magic(data)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ArtifactError(f"holds {info.filename!r} in version {version} of its format")
    shape, fortran, found = read_header(data, max_header_size=_LONGEST_HEADER)
    # Older exports stored the margin as another floating-point type.
    same_type = found == dtype or (not spec.shape and found.kind == "f")
    if not same_type or tuple(shape) != spec.shape:
        raise ArtifactError(f"holds {found} {shape} for {info.filename!r}, the contract says {spec.dtype} {spec.shape}")
    content = data.read()
    if len(content) != prod(spec.shape) * found.itemsize:
        raise ArtifactError(f"holds {len(content)} bytes of {info.filename!r}, {spec.dtype} {spec.shape} takes {size}")
    array: Array = np.frombuffer(content, found).reshape(spec.shape, order="F" if fortran else "C")
    if finite and not np.isfinite(array).all():
        raise ArtifactError(f"holds NaN or infinities in {info.filename!r}: the model it was made from is broken")
    return np.array(array, order="C")
