"""A keep-list as arguments of trtexec, for engines built with ``--fp16`` from the FP32 file.

The grammar is trtexec's own (its help and NVIDIA's sampleOptions.cpp, 8.x to 10.x): ``layerName:precision`` separated
by commas, split at the last colon; quotes are dropped and ``*`` stands for any text. Layers of an ONNX node carry its
name. A node of which the parser makes several layers gives them names of its own.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import TensorProto

from fine_edge.graph.view import GraphView

LONGEST_ARGUMENT = 128 * 1024
"""Linux takes no longer argument (MAX_ARG_STRLEN)."""

# A comma ends an entry, quotes are dropped, a star is a wildcard.
_UNSPEAKABLE = ",'*\"\n"


def unspeakable(names: Collection[str]) -> list[str]:
    """Names that trtexec's grammar cannot express."""
    return sorted(name for name in names if any(character in name for character in _UNSPEAKABLE))


def layer_precisions(names: Collection[str], view: GraphView) -> str:
    """The arguments, one a line; empty for no names.

    ``--layerPrecisions`` sets what a layer computes in, ``--layerOutputTypes`` what it stores: without the second, a
    result beyond 65504 would still be stored in FP16. Layers with an integer result get the first alone.
    """
    spoken = sorted(set(names) - set(unspeakable(names)))
    if not spoken:
        return ""
    nodes = {node.name: node for node in view.nodes}
    all_float = [
        name
        for name in spoken
        if name in nodes and all(view.dtype(output) == TensorProto.FLOAT for output in nodes[name].output if output)
    ]
    lines = ["--precisionConstraints=obey", "--layerPrecisions=" + ",".join(f"{name}:fp32" for name in spoken)]
    if all_float:
        lines.append("--layerOutputTypes=" + ",".join(f"{name}:fp32" for name in all_float))
    return "\n".join(lines) + "\n"
