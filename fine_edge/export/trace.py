"""PyTorch module to ONNX graph: torch.onnx's exporter, with nodes named after the modules they came from.

TensorRT and its tools show ONNX node names for every layer, so ``/encoder/fine.0/MatMul_2`` there
tells at once which part of the detector a kernel belongs to.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx
import torch
from torch import Tensor, nn

from fine_edge.zoo.library_export import quiet_exporter

# 17 is the first with LayerNormalization as one operator and 20 breaks GridSample in TensorRT 10.x;
# torch's exporter is written for 18 and up.
OPSET = 18


def trace(module: nn.Module, example: Tensor, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    """Export ``module(example)`` with static shapes.

    Args:
        module: in eval mode.
        example: its one input.
        inputs: name of the input.
        outputs: names of the outputs.
    """
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    _name_after_modules(model.graph)
    _strip(model)
    return model


def _scope(node: onnx.NodeProto) -> str:
    """``/encoder/fine.0`` from the exporter's list of nested module paths."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
    paths = [path for path in ast.literal_eval(scopes)[:-1] if path]  # the last one is the operator's own name
    if not paths:
        return ""
    # "encoder.fine.0.ffn_up": a child's path repeats its parents', and an index belongs to the name before it.
    parts: list[str] = []
    for part in paths[-1].split("."):
        if part.isdigit() and parts:
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return "/" + "/".join(parts)


def _name_after_modules(graph: onnx.GraphProto) -> None:
    seen: Counter[str] = Counter()
    scopes: dict[str, str] = {}  # of the node that gives a tensor
    for node in graph.node:
        # The exporter's own rewrites, such as slices into one Split, forget the scope: take the one of the input.
        scope = _scope(node) or next((scopes[name] for name in node.input if name in scopes), "")
        scopes.update(dict.fromkeys(node.output, scope))
        name = f"{scope}/{node.op_type}"
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes for debugging: stack traces would put one machine's paths into the artifact."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for values in (model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer):
        for value in values:
            del value.metadata_props[:]
            value.doc_string = ""
    model.doc_string = model.graph.doc_string = ""
