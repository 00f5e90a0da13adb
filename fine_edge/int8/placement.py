"""Placements: the sets of convolutions that compute in INT8.

Only convolutions are candidates. Attention, LayerNorm, sampling, FINE's modulation, box arithmetic and postprocessing
stay FP16, and so do the last convolutions in front of the outputs: an INT8 score has 256 levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from onnx import NodeProto, TensorProto

from fine_edge.errors import ConfigError
from fine_edge.estimate.flops import PRODUCTS, node_works
from fine_edge.graph.convert import kept_by_exporter
from fine_edge.graph.input_size import network_inputs
from fine_edge.graph.parts import Module, part_of
from fine_edge.graph.view import GraphView, attribute_int, input_name, output_name, value_dims

PlacementName = Literal["backbone", "neck", "backbone+neck", "convolutions"]
PLACEMENTS: tuple[PlacementName, ...] = get_args(PlacementName)

# Input channels below which a convolution stays FP16: INT8 kernels of tensor cores read 16 channels at once.
FEWEST_CHANNELS = 16

# A search for a later product ends here: what follows decides between classes or reads a distribution.
_DECIDES = ("Softmax", "TopK", "ArgMax")
_BY_STAGE = ("backbone", "other")
# Steps of a FINE block that weigh one map with another.
_FINE_STEPS_KEPT = ("attention", "modulation", "normalisation")


@dataclass(frozen=True)
class Convolution:
    """A convolution that can compute in INT8.

    Attributes:
        name: of the node.
        module: the module of the detector that it belongs to.
        block: the same, by stage where layers follow each other: ``backbone /8`` is the backbone's stage of stride 8.
        activation: name of the tensor that it reads.
        weight: name of its weights.
        flops: of one inference; 0 where shapes are unknown.
    """

    name: str
    module: Module
    block: str
    activation: str
    weight: str
    flops: int


def convolutions(view: GraphView, keep: Collection[str] = ()) -> list[Convolution]:
    """Return the convolutions of a graph that can compute in INT8, in the order of the graph.

    Args:
        view: an FP32 graph whose nodes have names.
        keep: names of nodes that stay FP16.

    Raises:
        ConfigError: when a name in ``keep`` is not in the graph.
    """
    if unknown := sorted(set(keep) - {node.name for node in view.nodes}):
        hint = "name nodes of this graph: --keep NODE..."
        raise ConfigError(f"no node is called {unknown[0]!r}", where="--keep", hint=hint)
    kept = set(keep) | set(kept_by_exporter(view.model))
    works = node_works(view)
    found = []
    for node in view.model.graph.node:
        if node.op_type != "Conv" or node.name in kept or not _suits(view, node) or not _product_follows(view, node):
            continue
        work = works.get(node.name)
        flops = work.product.flops if work and work.product else 0
        module = part_of(node.name).module
        block = _block(view, node, module)
        found.append(Convolution(node.name, module, block, input_name(node, 0), input_name(node, 1), flops))
    return found


def _block(view: GraphView, node: NodeProto, module: Module) -> str:
    """Return the module with the stride of the result, in a backbone and in a graph whose names tell no module."""
    pictures = [dims for value in network_inputs(view.model) if len(dims := value_dims(value)) == 4]
    result = view.shape(output_name(node)) or ()
    height = pictures[0][2] if pictures else None
    if module not in _BY_STAGE or not height or len(result) != 4 or not result[2]:
        return module
    return f"{module} /{round(height / result[2])}"


def depthwise(view: GraphView) -> int:
    """Return the number of convolutions with a filter for each channel."""
    weights = [
        (view.constant_tensor(input_name(node, 1)), attribute_int(node, "group", 1))
        for node in view.nodes
        if node.op_type == "Conv"
    ]
    return sum(group > 1 and tensor is not None and tensor.dims[1] == 1 for tensor, group in weights)


def _suits(view: GraphView, node: NodeProto) -> bool:
    """Return whether weights are constant, groups are not used, channels are enough and the step of FINE allows it."""
    weight = view.constant_tensor(input_name(node, 1))
    part = part_of(node.name)
    return (
        weight is not None
        and weight.data_type == TensorProto.FLOAT
        and len(weight.dims) == 4
        and weight.dims[1] >= FEWEST_CHANNELS
        and attribute_int(node, "group", 1) == 1
        and view.dtype(input_name(node, 0)) == TensorProto.FLOAT
        and not view.is_constant(input_name(node, 0))
        and part.detail not in _FINE_STEPS_KEPT
        and not _single_pixel(view, node)
    )


def _single_pixel(view: GraphView, node: NodeProto) -> bool:
    """Return whether the map has one pixel, as in a gate over channels, which is small and sets the scale of a map."""
    dims = view.shape(output_name(node))
    return dims is not None and len(dims) == 4 and dims[2] == 1 and dims[3] == 1


def _product_follows(view: GraphView, node: NodeProto) -> bool:
    """Return whether another matrix product reads the result; without one, the result is an output or decides one."""
    pending, seen = list(node.output), set()
    while pending:
        name = pending.pop()
        for reader in view.consumers(name):
            if reader.op_type in PRODUCTS:
                return True
            if reader.op_type not in _DECIDES:
                pending.extend(output for output in reader.output if output not in seen)
                seen.update(reader.output)
    return False


_MODULES: dict[PlacementName, tuple[Module, ...]] = {
    "backbone": ("backbone",),
    "neck": ("encoder",),
    "backbone+neck": ("backbone", "encoder"),
}


def placed(name: PlacementName, candidates: Sequence[Convolution]) -> list[Convolution]:
    """Return the convolutions of a placement; ``convolutions`` takes all of them."""
    modules = _MODULES.get(name)
    return [one for one in candidates if modules is None or one.module in modules]
