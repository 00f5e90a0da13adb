"""ONNX graphs rewritten for what reads them: normalisation moved into the graph, outputs in the form that is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.deploy.deployable import Deployable
from fine_edge.errors import ArtifactError
from fine_edge.graph.model_file import read_model
from fine_edge.graph.open_batch import BATCH
from fine_edge.preprocess import Preprocessing

# In front of names of new nodes, as exporters put a module's path in front of those of its nodes.
_SCOPE = "/deploy/"
# What the consumers read; other element types are cast to these.
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class Rewriting:
    """A graph that gets nodes before its input and behind its outputs; every weight is inside.

    Attributes:
        model: the graph.
        preprocessing: what is left to do outside of it.
    """

    def __init__(self, source: Deployable, reserved: Iterable[str]) -> None:
        """Read the graph; its tensors called as ``reserved``, the names of the new inputs and outputs, get others."""
        self._source, self._contract = source, source.contract
        self.model = read_model(source.path)
        self.preprocessing = source.contract.preprocessing
        self._taken = set(_names(self.model.graph))
        # Servers find tensors by fixed names, which a graph may use inside.
        self._renamed = {name: self._free(name) for name in reserved if name in self._taken}
        _rename(self.model.graph, self._renamed)
        known = {spec.name for spec in source.contract.inputs + source.contract.outputs}
        held = {value.name for value in (*self.model.graph.input, *self.model.graph.output)}
        # The contract says what the graph has; a graph of another export under its name would fail in the middle.
        if missing := sorted(name for name in known if self.inner(name) not in held):
            hint = "export the model again, or copy file and contract from one place"
            raise ArtifactError(f"has no input or output {', '.join(missing)}", where=source.path, hint=hint)

    def _free(self, name: str) -> str:
        found = next(
            candidate for number in itertools.count() if (candidate := f"{_SCOPE}{name}_{number}") not in self._taken
        )
        self._taken.add(found)
        return found

    def inner(self, name: str) -> str:
        """Return what a tensor of the contract is called in the graph now."""
        return self._renamed.get(name, name)

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Append a node, and return its output, which has a free name unless one is given."""
        output = output or self._free(kind.lower())
        self.model.graph.node.append(
            helper.make_node(kind, inputs, [output], name=self._free(f"node_{kind.lower()}"), **attributes)
        )
        return output

    def constant(self, values: ArrayLike, dtype: type = np.float32) -> str:
        """Add a constant, and return its name."""
        name = self._free("constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def cast(self, tensor: str, dtype: str, output: str = "") -> str:
        """Append the conversion of a tensor to another element type."""
        return self.node("Cast", [tensor], output, to=_TYPES[dtype])

    def take(self, image: str, how: Preprocessing) -> None:
        """Replace the image input by one that is preprocessed in another way, which differs in scale, mean and std.

        ``(pixel * scale - mean) / std`` of the contract is computed from what ``how`` gives: a product and a sum for
        each channel, and nothing where both are the same.

        Args:
            image: name of the new input.
            how: what is done outside from now on.
        """
        own, graph = self.preprocessing, self.model.graph
        name = self._contract.inputs[0].name
        # The network's input becomes an inner tensor, and the new input stands in front of it.
        old, network = self.inner(name), self._free(name)
        _rename(graph, {old: network})
        value = next(value for value in graph.input if value.name == network)
        # In float64, rounded once when it becomes a constant.
        old_scale, new_scale, old_std, new_std, old_mean, new_mean = (
            np.asarray(values, np.float64) for values in (own.scale, how.scale, own.std, how.std, own.mean, how.mean)
        )
        # pixel = (given * new_std + new_mean) / new_scale, put into the contract's formula.
        # (3,), also where every channel has the same value: the constants are (1, 3, 1, 1).
        factor = np.broadcast_to(new_std / new_scale * old_scale / old_std, 3)
        shift = np.broadcast_to((new_mean / new_scale * old_scale - old_mean) / old_std, 3)
        value.name = image
        self.preprocessing = how
        before, given = len(graph.node), image
        # A product with ones would be one more pass over the picture.
        if not np.allclose(factor, 1, rtol=1e-12, atol=0):
            given = self.node("Mul", [given, self.constant(factor.reshape(1, 3, 1, 1))])
        # A shift that only float64's own rounding has left.
        if not np.allclose(shift, 0, atol=1e-12):
            given = self.node("Add", [given, self.constant(shift.reshape(1, 3, 1, 1))])
        added = list(graph.node[before:])
        # The last node gives what the network takes; without any, the network takes the input itself.
        if added:
            added[-1].output[0] = network
        else:
            _rename(graph, {network: image})
        # Nodes stand in the order in which they are computed.
        kept = list(graph.node[:before])
        del graph.node[:]
        graph.node.extend([*added, *kept])

    def add_input(self, spec: TensorSpec) -> None:
        """Add an input."""
        self.model.graph.input.append(helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], spec.shape))

    def finish(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], file: str) -> tuple[bytes, str]:
        """Make ``outputs`` the graph's only ones.

        Args:
            inputs: all of them, in order; only described in the contract.
            outputs: all of them, in order; nodes for them are there.
            file: name that the ONNX file will have.

        Returns:
            The ONNX file and the text of its contract, whose ``made_by`` tells the hash of the file it was made from.

        Raises:
            ArtifactError: when the result is no valid ONNX.
        """
        graph = self.model.graph
        del graph.output[:]
        batch = [BATCH] if self._contract.batches else []  # stays open
        graph.output.extend(
            helper.make_tensor_value_info(s.name, _TYPES[s.dtype], [*batch, *s.shape[len(batch) :]]) for s in outputs
        )
        described = {value.name for value in (*graph.input, *graph.output)}
        # A tensor that is an input or output now would be described twice, perhaps with its old shape.
        inner = [value for value in graph.value_info if value.name not in described]
        del graph.value_info[:]
        graph.value_info.extend(inner)
        try:
            # Here, where the file can be named: on the board a builder would say it of a graph that nobody there has
            # made.
            onnx.checker.check_model(self.model)
        except onnx.checker.ValidationError as error:
            hint = "fine-edge graph check says what is wrong with it"
            raise ArtifactError(f"cannot be rewritten ({error})", where=self._source.path, hint=hint) from error
        # The same graph gives the same bytes, and so the same hash in the contract.
        data = self.model.SerializeToString(deterministic=True)
        return data, self._described(inputs, outputs, file, data).to_text()

    def _described(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], file: str, data: bytes
    ) -> Contract:
        own = self._contract
        return replace(
            own,
            artifacts=(Artifact(file, self._source.precision, sha256(data).hexdigest()),),
            inputs=inputs,
            outputs=outputs,
            preprocessing=self.preprocessing,
            # Its outputs are those of the consumer: this program's own decoding and golden outputs are of the old ones.
            postprocessed=False,
            golden={},
            made_by={**own.made_by, "rewritten_from": self._source.sha256},
        )


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and those inside its nodes, which see its tensors."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                # An attribute that holds no graph gives an empty one.
                if inner.node:
                    yield from _graphs(inner)


def _names(graph: GraphProto) -> Iterator[str]:
    for part in _graphs(graph):
        for node in part.node:
            yield from (*node.input, *node.output, node.name)
        yield from (value.name for value in (*part.input, *part.output, *part.initializer))


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename tensors wherever they stand."""
    if not names:
        return
    for part in _graphs(graph):
        for node in part.node:
            _rename_in(node, names)
        for value in (*part.input, *part.output, *part.initializer, *part.value_info):
            value.name = names.get(value.name, value.name)


def _rename_in(node: NodeProto, names: dict[str, str]) -> None:
    for ends in (node.input, node.output):
        for place, name in enumerate(ends):
            ends[place] = names.get(name, name)


def contract_file(onnx: str) -> str:
    """Return the name of the contract beside an ONNX file."""
    return f"{Path(onnx).stem}.contract.json"
