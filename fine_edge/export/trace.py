"""PyTorch module to ONNX graph: torch.onnx's exporter, with nodes named after the modules they came from.

TensorRT and its tools show the ONNX node name of every layer. A name such as ``/encoder/fine.0/MatMul_2`` tells which
part of the detector a kernel belongs to.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    OutputFixPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import (
    remove_optional_bias_from_conv_rule,
    reshape_reshape_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
)
from torch import Tensor, fx, nn

from fine_edge.zoo.family import quiet_exporter

# 17 is the first opset with LayerNormalization as one operator, and 20 breaks GridSample in TensorRT 10.x.
# torch's exporter is written for 18 and up.
OPSET = 18


# Of onnxscript's own rules those that something in the zoo meets. The others change nothing in any export, and trying
# them costs a fifth of it: one, for pairs of Slice, is tried at every pair of nodes.
_REWRITES = (
    remove_optional_bias_from_conv_rule,
    reshape_reshape_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
)
# A rewrite can leave constants to fold.
_ROUNDS = 2


def trace(module: nn.Module, example: Tensor, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    """Export ``module(example)`` with static shapes.

    Args:
        module: the network, in eval mode.
        example: its one input.
        inputs: name of the input.
        outputs: names of the outputs.
    """
    with torch.no_grad(), quiet_exporter(), _no_stack_traces():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # here instead, by fewer rules
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        _optimise(program.model)
    _name_after_modules(program.model.graph)
    _strip(program.model)
    return program.model_proto


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Let torch note for no node which lines of code made it: that takes a twentieth of the time, and is stripped."""
    before = getattr(fx.config, "do_not_emit_stack_traces", False)  # older releases have no such switch
    fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx.config.do_not_emit_stack_traces = before


def _optimise(model: ir.Model) -> None:
    """Fold constants, remove what is computed twice or never, and write short chains as one node."""
    InlinePass()(model)  # the exporter writes some operators as functions
    for _ in range(_ROUNDS):
        fold_constants_ir(model, onnx_shape_inference=True)
        rewritten = RewritePass(_REWRITES)(model).modified
        if not (RemoveUnusedNodesPass()(model).modified or rewritten):
            break
    for finish in (
        RemoveUnusedOpsetsPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        DeduplicateInitializersPass(),
        CommonSubexpressionEliminationPass(),
        OutputFixPass(),
        NameFixPass(),
    ):
        finish(model)


def _scope(node: ir.Node) -> str:
    """Return ``/encoder/fine.0``, read from the list of nested module paths that the exporter writes."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")
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


def _name_after_modules(graph: ir.Graph) -> None:
    """Name every node ``SCOPE/OPERATOR``, with a number from the second of one name on."""
    taken: Counter[str] = Counter()
    scopes: dict[ir.Node, str] = {}
    for node in graph:
        # The exporter's own rewrites, such as slices into one Split, lose the scope: use that of the first input.
        producers = [value.producer() for value in node.inputs if value is not None]
        inherited = (scopes[producer] for producer in producers if producer is not None and producer in scopes)
        scopes[node] = _scope(node) or next(inherited, "")
        name = f"{scopes[node]}/{node.op_type}"
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1


def _strip(model: ir.Model) -> None:
    """Remove what the exporter notes for debugging: its stack traces hold paths of the machine that exported."""
    ClearMetadataAndDocStringPass()(model)
    # The pass clears graphs and nodes; the model and its values keep theirs.
    model.metadata_props.clear()
    model.doc_string = None
    computed = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *computed):
        value.metadata_props.clear()
        value.doc_string = None
