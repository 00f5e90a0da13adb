"""What FP16 costs in accuracy, module by module: each is rounded alone while the rest of the graph stays FP32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from fine_edge.detections import Detections
from fine_edge.errors import ArtifactError
from fine_edge.graph.drift import Drift, drift
from fine_edge.graph.emulate import emulated
from fine_edge.graph.fp16 import to_fp16
from fine_edge.graph.network import Network
from fine_edge.graph.parts import MODULES, part_of
from fine_edge.graph.view import GraphView
from fine_edge.parity.tolerance import TOLERANCES
from fine_edge.runners.ort import OrtRunner


@dataclass(frozen=True)
class BudgetRow:
    """One choice of what is rounded.

    Attributes:
        module: name of the module, or what else was chosen.
        nodes: how many nodes compute in FP16.
        drift: what it does to the detections; ``None`` when it cannot be converted.
        refused: why not.
    """

    module: str
    nodes: int
    drift: Drift | None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        found = self.drift.to_json() if self.drift else None
        return {"module": self.module, "nodes": self.nodes, "drift": found, "refused": self.refused}


@dataclass(frozen=True)
class Choice:
    """What a row of the budget rounds: all nodes but those in ``keep``."""

    title: str
    keep: frozenset[str]


def choices(view: GraphView, kept: Collection[str], proposed: Collection[str]) -> list[Choice]:
    """Each module alone, then the whole graph: nothing kept, as it is exported, and with the proposal."""
    names = [node.name for node in view.nodes]
    modules = {name: part_of(name).module for name in names}
    alone = [
        Choice(module, frozenset(name for name in names if modules[name] != module))
        for module in MODULES
        if any(modules[node.name] == module for node in view.nodes if _computes_floats(node, view))
    ]
    whole = [Choice("all, nothing kept", frozenset())]
    if kept:
        whole.append(Choice("all, as exported", frozenset(kept)))
    if set(proposed) - set(kept):
        whole.append(Choice("all, with the keep-list", frozenset(kept) | frozenset(proposed)))
    return (alone if len(alone) > 1 else []) + whole


def _computes_floats(node: onnx.NodeProto, view: GraphView) -> bool:
    return any(view.dtype(name) == TensorProto.FLOAT for name in node.output)


def budget(
    network: Network, view: GraphView, images: Sequence[Path], rows: Sequence[Choice], advance: Callable[[], None]
) -> list[BudgetRow]:
    """Round the graph in every way given, run it on the pictures and compare with FP32.

    Args:
        network: an FP32 network whose outputs are detections.
        view: of its graph.
        images: files of pictures.
        rows: what to round.
        advance: called after every batch and run, ``1 + len(rows)`` runs in all.
    """
    reference = _detections(network, network.model, images, advance)
    counted = [node.name for node in view.nodes if _computes_floats(node, view)]
    found = []
    for row in rows:
        nodes = sum(name not in row.keep for name in counted)
        try:
            half = emulated(to_fp16(network.model, keep_fp32=row.keep))
        except ArtifactError as error:
            found.append(BudgetRow(row.title, nodes, None, error.what))
            continue
        candidate = _detections(network, half, images, advance)
        found.append(BudgetRow(row.title, nodes, drift(reference, candidate, TOLERANCES["fp16"])))
    return found


def _detections(
    network: Network, model: onnx.ModelProto, images: Sequence[Path], advance: Callable[[], None]
) -> list[Detections]:
    session = OrtRunner(network.path, model=model)
    found: list[Detections] = []
    for count, feed in network.batches(images):
        outputs = session.run({network.image_input: feed})
        found += [network.detections(outputs, image) for image in range(count)]
        advance()
    return found
