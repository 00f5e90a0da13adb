"""The size that a graph is compiled for: its own, or one that a graph with dynamic inputs is given.

A compiler takes 1 for every dimension without a number, and its figures are then those of a picture of one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ValueInfoProto

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.graph.walk import graphs_in
from fine_edge.text import printable

_PICTURE_RANK = 4
_USUAL_SIDE = 640


@dataclass(frozen=True)
class InputSize:
    """What the open dimensions of a picture input become: images, height and width in pixels."""

    height: int
    width: int
    batch: int = 1

    def __post_init__(self) -> None:
        for what, value in (("height", self.height), ("width", self.width), ("batch", self.batch)):
            if not 1 <= value <= 2**16:
                raise ConfigError(f"an input {what} of {value} cannot be", where="--input-size")

    @classmethod
    def parse(cls, text: str | None, batch: int | None = None) -> InputSize | None:
        """Read ``640`` or ``480x640`` (height x width) and a batch; ``None`` when neither is given.

        Raises:
            ConfigError: when it is no size, or only a batch is given.
        """
        if text is None:
            if batch is not None:
                raise ConfigError("needs --input-size", where="--batch", hint="--input-size 640 --batch 1")
            return None
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            what = f"input size {text!r} is not understood"
            raise ConfigError(what, where="--input-size", hint="use a side such as 640, or HEIGHTxWIDTH")
        return cls(int(parts[0]), int(parts[-1]), 1 if batch is None else batch)

    def __str__(self) -> str:
        """``1x3x640x640`` without its channels."""
        return f"{self.batch} x {self.height}x{self.width}"


def network_inputs(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """The inputs that somebody must feed: not those that have an initialiser."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in constants]


def shapes_text(model: onnx.ModelProto) -> str:
    """``images 1x3x640x640, ids 1x2``: what a graph is compiled for."""
    return ", ".join(f"{value.name} {'x'.join(_words(value)) or 'scalar'}" for value in network_inputs(model))


def is_open(value: ValueInfoProto) -> bool:
    """Whether an input's rank or one of its dimensions is not told; 0 and less are how some exporters say so."""
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(dim.dim_value < 1 for dim in tensor.shape.dim)


def require_static(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph whose inputs have open dimensions.

    Raises:
        ArtifactError: that names the input, its dimensions, and how to give them numbers.
    """
    for value in network_inputs(model):
        if is_open(value):
            raise ArtifactError(f"input {described(value)} is dynamic (FE04)", where=path, hint=how_to_fix(value))


def described(value: ValueInfoProto) -> str:
    """``'pixel_values' (batch, 3, height, width)``."""
    known = value.type.tensor_type.HasField("shape")
    name = printable(value.name)
    return f"'{name}' ({', '.join(_words(value))})" if known else f"'{name}' (of unknown rank)"


def how_to_fix(value: ValueInfoProto) -> str:
    """How to give an input's open dimensions numbers."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(dims) == _PICTURE_RANK:
        height, width = (dims[place] if dims[place] > 0 else _USUAL_SIDE for place in _sides(dims))
        size = f"--input-size {height}x{width}, and --batch {max(1, dims[0])}"
        channels = dims[({1, 2, 3} - set(_sides(dims))).pop()]
        return f"give it a size: {size}" if channels > 0 else "export it with a number of channels"
    return (
        "export it with static shapes; --input-size fixes inputs of pictures (B, C, H, W) and what shares their batch"
    )


def _words(value: ValueInfoProto) -> list[str]:
    dims = value.type.tensor_type.shape.dim
    return [str(dim.dim_value) if dim.dim_value > 0 else printable(dim.dim_param) or "?" for dim in dims]


def fixed(model: onnx.ModelProto, size: InputSize, path: Path) -> onnx.ModelProto:
    """A copy of a model with numbers for the open dimensions of its picture inputs, and all that share their names.

    Dimensions that are numbers already must be those of the size asked for.

    Raises:
        ArtifactError: when it takes no pictures, is of another size, or an input stays open.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    pictures = [value for value in network_inputs(copy) if len(value.type.tensor_type.shape.dim) == _PICTURE_RANK]
    if not pictures:
        raise ArtifactError("takes no pictures (B, C, H, W), so --input-size says nothing of it", where=path)
    named: dict[str, int] = {}
    for value in pictures:
        _fill(value, size, named, path)
    for value in network_inputs(copy):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value < 1 and (number := named.get(dim.dim_param, size.batch if place == 0 else 0)):
                dim.dim_value = number
    for graph in graphs_in(copy):  # what was inferred from open inputs no longer holds
        del graph.value_info[:]
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 1:
                dim.Clear()
    require_static(copy, path)
    return copy


def _sides(dims: Sequence[int]) -> tuple[int, int]:
    """Where height and width of a picture are: behind its channels or, as TensorFlow lays pictures out, before them."""
    last = dims[3] in (1, 3, 4) and dims[1] not in (1, 3, 4)
    return (1, 2) if last else (2, 3)


def _fill(value: ValueInfoProto, size: InputSize, named: dict[str, int], path: Path) -> None:
    dims = value.type.tensor_type.shape.dim
    height, width = _sides([dim.dim_value for dim in dims])
    wanted = {0: size.batch, height: size.height, width: size.width}
    for place, dim in enumerate(dims):
        number = wanted.get(place)
        if dim.dim_value > 0:
            if number not in (None, dim.dim_value):
                what = f"input {described(value)} has numbers already, and they are not {size}"
                raise ArtifactError(what, where=path, hint="leave out --input-size, or give its own")
            continue
        if number is None:
            raise ArtifactError(f"input {described(value)} does not say how many channels it has", where=path)
        if dim.dim_param:
            named.setdefault(dim.dim_param, number)
        dim.dim_value = number
