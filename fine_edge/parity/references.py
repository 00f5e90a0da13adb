"""Compare an artifact with its reference: the PyTorch model, or the golden outputs that its export stored."""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from fine_edge import console
from fine_edge.contract import Artifact, Contract, Precision, TensorSpec, bound_contract
from fine_edge.errors import ArtifactError, MissingExtraError
from fine_edge.feed import Feed, as_frame, noise
from fine_edge.files import file_size, sha256_of
from fine_edge.images import NamedImage, Pictures
from fine_edge.parity.compare import Case, compare
from fine_edge.parity.report import ParityReport
from fine_edge.runners.base import ROUNDED, Array, Runner

# Read golden files: inputs, and the outputs of the library's own model for them, stored by an export.
#
# Their arrays are checked against the contract, by name, type and shape, before any of their contents are unpacked.

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


def inputs_for(contract: Contract, images: list[NamedImage] | Pictures) -> Iterator[tuple[str, Array]]:
    """Yield real pictures after the contract's preprocessing, then one input of noise; each is a full batch.

    Where several batches are taken, they are those of :func:`_sizes`, with as many unlike pictures as there are; the
    first picture changes from batch to batch.
    """
    feed = Feed(contract.input_hw, contract.preprocessing, exact=True)
    spec = contract.inputs[0]

    def tensor(image: NamedImage) -> Array:
        pixels = as_frame(image.pixels, contract.input_hw) if contract.preprocessing.in_graph else image.pixels
        return feed(pixels)[0]

    if contract.batches is None:
        for image in images:
            yield image.name, np.repeat(tensor(image), contract.batch, axis=0)
    else:
        pictures = itertools.chain.from_iterable(itertools.repeat(images))  # read again: a cycle would keep them all
        for batch in _sizes(contract, len(images)):
            taken = list(itertools.islice(pictures, batch))
            yield f"{taken[0].name} and on x {batch}", np.concatenate([tensor(image) for image in taken])
    yield "uniform noise", noise(spec.shape, np.dtype(spec.dtype), 0)


def _sizes(contract: Contract, pictures: int) -> list[int]:
    """Return the size of each batch: every one of :func:`batches_tried`, then the largest until none is left out."""
    sizes = list(batches_tried(contract)) if contract.batches else [contract.batch] * pictures
    while contract.batches and sum(sizes) < pictures:
        sizes.append(contract.batch)
    return sizes


def batches_tried(contract: Contract) -> tuple[int, ...]:
    """Return the batches that an artifact is compared at: the smallest, the optimum, the largest and one between.

    The one between is 3 where that is none of them: no power of two, which compilers have kernels of their own for.
    """
    if contract.batches is None:
        return (contract.batch,)
    smallest, optimum, largest = contract.batches
    between = 3 if smallest < 3 < largest else (smallest + largest) // 2
    return tuple(sorted({smallest, between, optimum, largest}))


def _bound(onnx_path: Path, precision: Precision | None, contract: Contract | None) -> tuple[Contract, Artifact]:
    """Return contract and artifact; what is given replaces the file's where the runner computes or takes another."""
    of_file, artifact = bound_contract(onnx_path)
    return contract or of_file, replace(artifact, precision=precision or artifact.precision)


def against_golden(
    onnx_path: Path, runner: Runner, precision: Precision | None = None, contract: Contract | None = None
) -> ParityReport:
    """Compare an artifact with its golden outputs: PyTorch's at its export, or those of an INT8 file. Needs no torch.

    Where several batches are taken, it runs the first pictures at each of :func:`batches_tried`.

    Args:
        onnx_path: the artifact.
        runner: runs the artifact.
        precision: whose tolerance applies, where the runner computes in another than the artifact's.
        contract: of an engine, which may take fewer batches than the artifact.

    Raises:
        ArtifactError: when the golden file is missing, changed or broken, or holds fewer pictures than one batch.
    """
    of_file, artifact = _bound(onnx_path, precision, None)
    contract = contract or of_file
    cases = []
    for case in read_golden(of_file, artifact, onnx_path):
        for batch in batches_tried(contract):
            if batch > len(case.images):
                what = f"the golden file holds {len(case.images)} pictures, a batch of {batch} needs more"
                raise ArtifactError(what, where=onnx_path, hint="leave out --golden, or export it with --batch of that")
            got = runner.run({contract.inputs[0].name: case.images[:batch]})
            expected = {name: value[:batch] for name, value in case.outputs.items()}
            name = case.name if contract.batches is None else f"{case.name} x {batch}"
            cases.append(Case(name, expected, got, case.selection_margin))
    made_by = ROUNDED if artifact.golden else "pytorch-cpu"
    return compare(contract, artifact, cases, reference=f"golden ({made_by})", candidate=runner.name)


def against_pytorch(
    onnx_path: Path,
    runner: Runner,
    images: list[NamedImage] | Pictures,
    weights: Path | None = None,
    precision: Precision | None = None,
    contract: Contract | None = None,
) -> ParityReport:
    """Compare an artifact with the PyTorch model that it was exported from, on pictures and on noise.

    ``contract`` is that of an engine, which may take fewer batches than the artifact.

    Raises:
        ArtifactError: when it was exported from other weights than the given ones.
        MissingExtraError: when torch is not installed.
    """
    contract, artifact = _bound(onnx_path, precision, contract)
    try:
        from fine_edge.runners.eager import EagerRunner
        from fine_edge.zoo.catalog import find
        from fine_edge.zoo.load import load
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} (or check with --golden)", "export") from error
    provenance = contract.made_by["weights"]
    # The seed makes what no checkpoint fills, as it did at the export.
    detector = load(find(contract.model), weights, provenance.get("seed", 0))
    if any(provenance.get(key) != detector.provenance.get(key) for key in ("source", "sha256")):
        raise ArtifactError(
            "was exported from other weights", where=onnx_path, hint="give the same --weights, or check with --golden"
        )
    eager = EagerRunner(detector.model, detector.family, contract.preprocessing, raw=not contract.postprocessed)
    cases = []
    total = 1 + len(_sizes(contract, len(images)))
    with console.progress() as bar:
        for name, tensor in bar.track(inputs_for(contract, images), total=total, description="comparing"):
            feed = {contract.inputs[0].name: tensor}
            expected = eager.run(feed)
            cases.append(Case(name, expected, runner.run(feed), eager.selection_margin))
    return compare(contract, artifact, cases, reference=eager.name, candidate=runner.name)
