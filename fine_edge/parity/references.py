"""Compare an artifact with its reference: the PyTorch model, or the outputs stored at its export."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fine_edge import console
from fine_edge.contract import Artifact, Contract, Precision, bound_contract
from fine_edge.errors import ArtifactError, MissingExtraError
from fine_edge.feed import Feed, as_frame, noise
from fine_edge.images import NamedImage, Pictures
from fine_edge.parity.compare import Case, compare
from fine_edge.parity.golden import read_golden
from fine_edge.parity.report import ParityReport
from fine_edge.runners.base import ROUNDED, Array, Runner


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
