"""The batches that an engine takes: one, or the range of its optimisation profile.

TensorRT picks kernels for the optimum and plans memory for the largest batch. Where ``export --batch MIN:MAX`` names
no optimum, it is the largest batch: a server that waits for a batch fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from fine_edge.contract import Batches, batches_text, contract_path, read_contract
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ArtifactError
from fine_edge.graph.input_size import InputSize, has_open_batch, network_inputs, picture_size
from fine_edge.graph.model_file import read_model
from fine_edge.graph.open_batch import largest_batch

Dims = tuple[int, ...]
Profile = dict[str, tuple[Dims, Dims, Dims]]
"""The smallest, the optimal and the largest shape of each input whose batch is open."""


def own_batches(model: onnx.ModelProto, path: Path) -> Batches | None:
    """Return the batches that a graph takes, by its contract or by itself; ``None`` where that is one, or unknown."""
    most = largest_batch(model)
    if most is None or not any(map(has_open_batch, network_inputs(model))):
        return None
    contract = contract_path(path)
    batches = read_contract(contract).batches if contract.exists() else None
    return batches or (1, most, most)


def optimum_size(path: Path) -> InputSize | None:
    """Return the size of a graph's inputs at the optimum of its batches; ``None`` where it takes one batch."""
    model = read_model(path, weights=False)
    batches = own_batches(model, path)
    return picture_size(model, batches[1], path) if batches else None


def batch_size(path: Path, batch: int) -> InputSize:
    """Return the size of a graph's inputs at one batch.

    Raises:
        ArtifactError: when the batch is beyond those of the graph.
    """
    model = read_model(path, weights=False)
    own = own_batches(model, path)
    if own is not None:
        _require_within(own, (batch,), path)
    return picture_size(model, batch, path)


def _require_within(own: Batches, asked: Sequence[int], path: Path) -> None:
    if not own[0] <= asked[0] <= asked[-1] <= own[2]:
        what = f"batch {batches_text(asked)} is beyond what the graph takes, {batches_text(own)}"
        hint = f"export it with --batch {min(own[0], asked[0])}:{max(own[2], asked[-1])}"
        raise ArtifactError(what, where=path, hint=hint)


def resolved(path: Path, options: BuildOptions) -> BuildOptions:
    """Return the options with the batches of the graph's own, where it takes several and nothing else is asked for.

    Raises:
        ArtifactError: when the batches that are asked for are beyond those of the graph.
    """
    model = read_model(path, weights=False)
    own = own_batches(model, path)
    if own is None:
        return options
    asked = options.batches or ((options.input_size.batch,) if options.input_size else own)
    _require_within(own, asked, path)
    return options if options.batches or options.input_size else replace(options, batches=own)


def profile_of(model: onnx.ModelProto, batches: Batches) -> Profile:
    """Return the profile of a graph whose only open dimensions are its inputs' first."""
    found = {}
    for value in network_inputs(model):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if dims and dims[0] < 1:
            least, best, most = ((batch, *dims[1:]) for batch in batches)
            found[value.name] = (least, best, most)
    return found


def trtexec_flags(profile: Profile) -> list[str]:
    """Return the options of trtexec that give its engine the same profile."""
    flags = []
    for place, bound in enumerate(("min", "opt", "max")):
        shapes = (f"{name}:{'x'.join(map(str, bounds[place]))}" for name, bounds in profile.items())
        flags.append(f"--{bound}Shapes={','.join(shapes)}")
    return flags
