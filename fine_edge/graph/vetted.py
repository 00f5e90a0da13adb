"""A model that may be run or compiled: it ends, fits into memory, and its weights are numbers."""

from __future__ import annotations

from pathlib import Path

from fine_edge.errors import ArtifactError
from fine_edge.graph.model_file import read_model
from fine_edge.graph.rules_weights import finite_weights
from fine_edge.graph.runaway import runaway
from fine_edge.graph.view import GraphView


def read_vetted(path: Path) -> GraphView:
    """Read a model, without the weights that other files hold, that may be given to a runtime or compiler.

    Raises:
        ArtifactError: as :func:`fine_edge.graph.model_file.read_model`, and as :func:`vet`.
    """
    view = GraphView(read_model(path, weights=False), path)
    vet(view, path)
    return view


def vet(view: GraphView, path: Path) -> None:
    """Refuse a graph that need not end or fit into memory, or whose weights are not finite.

    Raises:
        ArtifactError: naming the node or tensor.
    """
    if reason := runaway(view):
        hint = "export it with fixed shapes and loops unrolled; do not use a file you did not make"
        raise ArtifactError(reason, where=path, hint=hint)
    for finding in finite_weights(view):
        raise ArtifactError(f"{finding.message} ({finding.rule})", where=path, hint=finding.hint)
