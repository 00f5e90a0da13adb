"""From a layer's name, type and ONNX nodes to the part of the detector it belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fine_edge.graph.parts import OTHER, Part, part_of, part_of_all
from fine_edge.layers.layer import REFORMAT

# Older engines and low profiling verbosity have the nodes in the layer's name only, joined by " + " and wrapped in
# words: "PWN(/a/Sigmoid, /a/Mul)", "{ForeignNode[/a/MatMul.../b/Add]}".
_NODE_IN_NAME = re.compile(r"/[^\s,()\[\]{}+]+")


def nodes_in_name(name: str) -> tuple[str, ...]:
    """ONNX nodes that a layer's name spells out, without Myelin's suffix (``/a/Conv_myl0_3``)."""
    plain = re.sub(r"_myl\d+_\d+$", "", name)
    return tuple(match.rstrip(".") for joined in _NODE_IN_NAME.findall(plain) for match in joined.split("..."))


def is_reformat(name: str, kind: str) -> bool:
    """Whether a layer only copies from one memory layout to another."""
    return kind.lower() == "reformat" or name.startswith("Reformatting CopyNode")


def attribute(name: str, kind: str, onnx_nodes: Sequence[str]) -> tuple[Part, bool]:
    """The part of a layer, and whether its nodes belong to several modules of the detector."""
    if is_reformat(name, kind):
        return REFORMAT, False
    nodes = onnx_nodes or nodes_in_name(name)
    modules = {part.module for part in map(part_of, nodes) if part != OTHER}
    return part_of_all(nodes), len(modules) > 1
