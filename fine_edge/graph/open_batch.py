"""One graph for any number of pictures, out of two traces of a network: with two and with three of them.

A trace with static shapes writes the batch into targets of Reshape, sizes of Resize and tables of row offsets. Where
two traces differ is therefore where the batch is; the same nodes with those places opened are the graph for any batch.
Nothing is guessed: a difference of another kind is refused, and names the node.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.view import Dims, GraphView, label

# Batches of the traces: the smallest that differ, as 1 is also what broadcasting and unsqueezing write.
TWO, THREE = 2, 3
# Name of the open dimension.
BATCH = "batch"

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where")
# Equal rows may pass through these as one, which broadcasting behind them makes as many as there are pictures.
_ALONG_ROWS = ("Slice", "Split", "Unsqueeze")
_SIZES = 3  # place among the inputs of Resize; the factors stand before it
_SCOPE = "/batch"
_NOTE = "fine_edge.largest_batch"


def open_batch(two: onnx.ModelProto, three: onnx.ModelProto, most: int) -> onnx.ModelProto:
    """Return the graph whose first dimension of every input and output is open.

    Args:
        two: the network traced with two pictures.
        three: the same with three.
        most: largest batch that it shall take; tables of row offsets are that long.

    Raises:
        ArtifactError: when the two differ in more than the batch.
    """
    model = onnx.ModelProto()
    model.CopyFrom(two)
    views = GraphView(two), GraphView(three)
    _require_same_nodes(*views)
    opener = _Opener(model, *views, most)
    for node, other in zip(model.graph.node, three.graph.node, strict=True):
        for place, name in enumerate(list(node.input)):
            opener.open_input(node, place, name, other.input[place])
    opener.finish()
    _open_values(model, *views)
    note_batch(model, most)
    return model


def note_batch(model: onnx.ModelProto, most: int) -> None:
    """Write the largest batch that it takes into a graph whose batch is open."""
    model.metadata_props.add(key=_NOTE, value=str(most))


def _require_same_nodes(two: GraphView, three: GraphView) -> None:
    if len(two.model.graph.node) != len(three.model.graph.node):
        raise _not_one_graph("the graph has other nodes for another batch", two)
    for a, b in zip(two.model.graph.node, three.model.graph.node, strict=True):
        same = [x.SerializeToString() for x in a.attribute] == [x.SerializeToString() for x in b.attribute]
        if not same or (a.op_type, len(a.output), len(a.input)) != (b.op_type, len(b.output), len(b.input)):
            raise _not_one_graph(f"{label(a)} is another node for another batch", two)


def _not_one_graph(what: str, view: GraphView) -> ArtifactError:
    where = view.model.graph.name or "the graph"
    return ArtifactError(what, where=where, hint="export it for one batch: --batch N")


class _Opener:
    """Replaces the constants of a model that hold its batch."""

    def __init__(self, model: onnx.ModelProto, two: GraphView, three: GraphView, most: int) -> None:
        self._model, self._two, self._three, self._most = model, two, three, most
        # A constant more or less shifts the numbers in all names behind it: tensors are the same by place.
        places = zip(two.model.graph.node, three.model.graph.node, strict=True)
        self._same = {there: here for a, b in places for here, there in zip(a.output, b.output, strict=True)}
        self._same |= {value.name: value.name for value in two.model.graph.input}
        self._other = {here: there for there, here in self._same.items()}
        self._made: dict[tuple[str, str], str] = {}
        self._added: list[NodeProto] = []

    def open_input(self, node: NodeProto, place: int, name: str, other_name: str) -> None:
        """Replace one input of a node where its value differs between the two traces."""
        here, there = self._two.constant(name), self._three.constant(other_name)
        if here is None and there is None:
            if self._same.get(other_name, "") != name:
                raise _not_one_graph(f"{label(node)} reads another tensor for another batch", self._two)
            return
        if here is None or there is None:
            raise _not_one_graph(f"{label(node)} reads a constant for one batch only", self._two)
        if here.shape == there.shape and np.array_equal(here, there):
            return
        if node.op_type == "Reshape" and place == 1:
            node.input[place] = self._target(node)
            # Torch asks for a 0 to mean no elements; here it means the input's own dimension.
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
        elif node.op_type == "Resize" and place == _SIZES:
            # Sizes name the batch and factors do not, so these take their place.
            node.input[place - 1] = self._scales(node)
            del node.input[place]
        elif node.op_type in _ELEMENTWISE or (node.op_type in _ALONG_ROWS and place == 0):
            node.input[place] = self._rows(node, name, here, there)
        else:
            raise _not_one_graph(f"{label(node)} holds the batch in input {place}", self._two)

    def _shapes(self, name: str) -> tuple[Dims, Dims]:
        """Return the dimensions of a tensor in the two traces."""
        return self._two.shape(name) or (), self._three.shape(self._other[name]) or ()

    def _target(self, node: NodeProto) -> str:
        """Return the name of a target of Reshape in which the batch is copied from the input, or follows."""
        output, source = node.output[0], node.input[0]
        dims, others = self._shapes(output)
        differ = [axis for axis, (a, b) in enumerate(zip(dims, others, strict=False)) if a != b]
        if len(differ) != 1 or len(dims) != len(others) or None in dims:
            raise _not_one_graph(f"{label(node)} spreads the batch over {len(differ)} dimensions", self._two)
        (axis,) = differ
        inputs = [shape[axis : axis + 1] for shape in self._shapes(source)]
        is_copy = inputs == [(TWO,), (THREE,)] and (dims[axis], others[axis]) == (TWO, THREE)
        target = np.array([(0 if is_copy else -1) if a == axis else dim for a, dim in enumerate(dims)], np.int64)
        return self._constant(target, "target")

    def _scales(self, node: NodeProto) -> str:
        """Return the name of the factors that give the sizes of a Resize, whatever the batch."""
        source, output = self._two.shape(node.input[0]) or (), self._two.shape(node.output[0]) or ()
        if None in (*source, *output) or source[:1] != output[:1]:
            raise _not_one_graph(f"{label(node)} resizes along the batch", self._two)
        scales = np.array([to / by for to, by in zip(output, source, strict=True) if to and by], np.float32)
        if tuple(np.floor(np.array(source) * scales)) != output:
            raise _not_one_graph(f"{label(node)} resizes by a factor that no FP32 number holds", self._two)
        return self._constant(scales, "scales")

    def _rows(self, node: NodeProto, name: str, here: NDArray[np.generic], there: NDArray[np.generic]) -> str:
        """Return the name of a table with rows for each picture: equal rows as one, counted rows cut to the batch."""
        each = len(here) // TWO if here.ndim else 0  # rows of one picture
        whole = each and here.shape[0] == each * TWO and there.shape == (each * THREE, *here.shape[1:])
        if whole and np.array_equal(here, there[: len(here)]):
            steps = np.diff(there, axis=0)
            if not steps.any():
                return self._constant(here[:1], "row")
            if node.op_type in _ELEMENTWISE and np.array_equal(steps, np.broadcast_to(steps[:1], steps.shape)):
                counts = np.arange(each * self._most, dtype=here.dtype).reshape(-1, *[1] * (here.ndim - 1))
                return self._cut(self._constant(here[:1] + counts * steps[:1], "rows"), each)
        raise _not_one_graph(f"{label(node)} reads {name}, whose values depend on the batch", self._two)

    def _constant(self, value: NDArray[np.generic], kind: str) -> str:
        key = (f"{value.dtype}{value.shape}", value.tobytes().hex())
        if key not in self._made:
            self._made[key] = f"{_SCOPE}/{kind}_{len(self._made)}"
            self._model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), self._made[key]))
        return self._made[key]

    def _cut(self, table: str, each: int) -> str:
        """Return the first rows of a table, ``each`` for each picture of the batch."""
        cut = f"{table}/cut"
        if any(cut in node.output for node in self._added):
            return cut
        size, zero = f"{_SCOPE}/size", self._constant(np.zeros(1, np.int64), "zero")
        if not self._added:
            first = self._model.graph.input[0].name
            self._added.append(helper.make_node("Shape", [first], [size], name=f"{_SCOPE}/Shape", start=0, end=1))
        if each > 1:
            rows = f"{table}/size"
            factor = self._constant(np.array([each], np.int64), "each")
            self._added.append(helper.make_node("Mul", [size, factor], [rows], name=f"{rows}/Mul"))
            size = rows
        self._added.append(helper.make_node("Slice", [table, zero, size, zero], [cut], name=f"{cut}/Slice"))
        return cut

    def finish(self) -> None:
        """Put the new nodes in front, and remove constants that nothing reads any more."""
        graph = self._model.graph
        nodes = [*self._added, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _open_values(model: onnx.ModelProto, two: GraphView, three: GraphView) -> None:
    """Name the open dimensions of inputs and outputs, and forget those between them."""
    for value in (*model.graph.input, *model.graph.output):
        pairs = list(_dims(value.name, two, three))
        if not pairs or pairs[0] != (TWO, THREE) or any(a != b for a, b in pairs[1:]):
            raise _not_one_graph(f"the first dimension of {value.name!r} is not the batch", two)
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del model.graph.value_info[:]  # they speak of two pictures, and readers infer their own


def _dims(name: str, two: GraphView, three: GraphView) -> Iterator[tuple[int | None, int | None]]:
    return zip(two.shape(name) or (), three.shape(name) or (), strict=False)


def largest_batch(model: onnx.ModelProto) -> int | None:
    """Return the largest batch that :func:`note_batch` wrote into a graph; ``None`` for any other graph."""
    noted = [entry.value for entry in model.metadata_props if entry.key == _NOTE]
    return int(noted[0]) if noted and noted[0].isascii() and noted[0].isdigit() and len(noted[0]) < 7 else None
