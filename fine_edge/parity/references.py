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

    A graph that takes several batches gets the smallest, one of three and the largest in turns.
    """
    feed = Feed(contract.input_hw, contract.preprocessing, exact=True)
    batches = itertools.cycle(_tried(contract))
    for image in images:
        pixels = as_frame(image.pixels, contract.input_hw) if contract.preprocessing.in_graph else image.pixels
        batch = next(batches)
        name = image.name if contract.batches is None else f"{image.name} x {batch}"
        yield name, np.repeat(feed(pixels)[0], batch, axis=0)
    spec = contract.inputs[0]
    yield "uniform noise", noise(spec.shape, np.dtype(spec.dtype), 0)


def _tried(contract: Contract) -> tuple[int, ...]:
    if contract.batches is None:
        return (contract.batch,)
    smallest, _, largest = contract.batches
    return tuple(sorted({smallest, min(max(3, smallest), largest), largest}))


def _bound(onnx_path: Path, precision: Precision | None) -> tuple[Contract, Artifact]:
    """Return contract and artifact; ``precision`` replaces the artifact's where the runner computes in another."""
    contract, artifact = bound_contract(onnx_path)
    return contract, replace(artifact, precision=precision or artifact.precision)


def against_golden(onnx_path: Path, runner: Runner, precision: Precision | None = None) -> ParityReport:
    """Compare an artifact with its golden outputs: PyTorch's at its export, or those of an INT8 file. Needs no torch.

    Args:
        onnx_path: the artifact.
        runner: runs the artifact.
        precision: whose tolerance applies, where the runner computes in another than the artifact's.

    Raises:
        ArtifactError: when the golden file is missing, changed or broken.
    """
    contract, artifact = _bound(onnx_path, precision)
    cases = []
    for case in read_golden(contract, artifact, onnx_path):
        got = runner.run({contract.inputs[0].name: case.images})
        cases.append(Case(case.name, case.outputs, got, case.selection_margin))
    made_by = ROUNDED if artifact.golden else "pytorch-cpu"
    return compare(contract, artifact, cases, reference=f"golden ({made_by})", candidate=runner.name)


def against_pytorch(
    onnx_path: Path,
    runner: Runner,
    images: list[NamedImage] | Pictures,
    weights: Path | None = None,
    precision: Precision | None = None,
) -> ParityReport:
    """Compare an artifact with the PyTorch model that it was exported from, on pictures and on noise.

    Raises:
        ArtifactError: when it was exported from other weights than the given ones.
        MissingExtraError: when torch is not installed.
    """
    contract, artifact = _bound(onnx_path, precision)
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
    with console.progress() as bar:
        for name, tensor in bar.track(inputs_for(contract, images), total=len(images) + 1, description="comparing"):
            feed = {contract.inputs[0].name: tensor}
            expected = eager.run(feed)
            cases.append(Case(name, expected, runner.run(feed), eager.selection_margin))
    return compare(contract, artifact, cases, reference=eager.name, candidate=runner.name)
