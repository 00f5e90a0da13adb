"""Keep-lists: the names of nodes that stay FP32 in an FP16 graph, and files of such names.

A keep-list file holds one node name a line. Empty lines and lines that start with ``#`` are skipped.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx

from fine_edge.contract import Contract
from fine_edge.errors import ConfigError
from fine_edge.files import read_text, write_text
from fine_edge.fp16.hazards import Hazard
from fine_edge.graph.identity import identity_of
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView


def kept_in_sibling(path: Path, model: onnx.ModelProto, contract: Contract | None) -> list[str] | None:
    """Return the nodes of an FP32 graph that its FP16 file computes in FP32; ``None`` when there is no such file.

    Args:
        path: the FP32 file.
        model: the graph in it.
        contract: the contract of both files.
    """
    artifact = next((a for a in contract.artifacts if a.precision == "fp16"), None) if contract else None
    sibling = path.with_name(artifact.file) if artifact else None
    if sibling is None or artifact is None or not sibling.is_file() or identity_of(sibling) != artifact.sha256:
        return None
    floats = _float_nodes(model)
    wide = _float_nodes(read_model(sibling))
    # The FP16 graph has casts that the converter added; they are not in the FP32 graph.
    return [name for name in floats if name in wide]


def _float_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of nodes that compute FP32 tensors, in the order of the graph."""
    view = GraphView(model)
    return [node.name for node in view.nodes if view.computes_fp32(node)]


def proposed(hazards: Collection[Hazard]) -> list[str]:
    """Return the smallest set of nodes that avoids the hazards when it stays FP32."""
    return sorted({name for hazard in hazards if hazard.keep_fp32 for name in hazard.keep})


def read_keep_list(path: Path) -> tuple[str, ...]:
    """Return the names in a keep-list file, sorted.

    Raises:
        ConfigError: when the file cannot be read as text.
    """
    lines = read_text(
        path, ConfigError, hint="give a keep-list: one node name a line, as graph fp16 writes it"
    ).splitlines()
    return tuple(sorted({line.strip() for line in lines if line.strip() and not line.startswith("#")}))


def write_keep_list(path: Path, names: Collection[str], source: str) -> None:
    """Write one name a line, below a comment that names the graph."""
    title = f"# nodes of {source} that stay FP32, besides those of every export"
    write_text(path, "".join(f"{line}\n" for line in (title, *sorted(names))))
