"""The input size that a graph is compiled for: its own, or the one given for a graph with dynamic inputs.

A compiler takes 1 for every dimension without a number. Its figures would then be those of a picture of one pixel.
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
    """The numbers for the open dimensions of a picture input: height and width in pixels, and the batch."""

    height: int
    width: int
    batch: int = 1

    def __post_init__(self) -> None:
        for what, value in (("height", self.height), ("width", self.width), ("batch", self.batch)):
            if not 1 <= value <= 2**16:
                message = f"an input {what} of {value} is not possible"
                raise ConfigError(message, where="--input-size", hint=f"give 1 to {2**16}, for example 640")

    @classmethod
    def parse(cls, text: str | None, batch: int | None = None) -> InputSize | None:
        """Read ``640`` or ``480x640`` (height x width) and a batch; return ``None`` when neither is given.

        Raises:
            ConfigError: when the text is no size, or only a batch is given.
        """
        if text is None:
            if batch is not None:
                raise ConfigError("needs --input-size", where="--batch", hint="give both: --input-size 640 --batch 1")
            return None
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            what = f"input size {text!r} is not understood"
            raise ConfigError(what, where="--input-size", hint="use a side such as 640, or HEIGHTxWIDTH")
        return cls(int(parts[0]), int(parts[-1]), 1 if batch is None else batch)

    def __str__(self) -> str:
        """Return the size as text, ``1 x 480x640``."""
        return f"{self.batch} x {self.height}x{self.width}"


def network_inputs(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """Return the inputs that a caller must feed: those without an initialiser."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in constants]


def shapes_text(model: onnx.ModelProto) -> str:
    """Return the inputs that a graph is compiled for as text, ``images 1x3x640x640, ids 1x2``."""
    return ", ".join(f"{value.name} {'x'.join(_dims_text(value)) or 'scalar'}" for value in network_inputs(model))


def is_open(value: ValueInfoProto) -> bool:
    """Return whether an input's rank or one of its dimensions is unknown; some exporters write 0 or less for that."""
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(dim.dim_value < 1 for dim in tensor.shape.dim)


def has_open_batch(value: ValueInfoProto) -> bool:
    """Return whether the first dimension of an input, and no other, is open."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return bool(dims) and dims[0] < 1 and all(dim > 0 for dim in dims[1:])


def require_open_batch(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph whose open dimensions are not the batch, of a picture input at least.

    Raises:
        ArtifactError: names the input and its dimensions; the hint says how to give them numbers.
    """
    inputs = network_inputs(model)
    for value in inputs:
        if is_open(value) and not has_open_batch(value):
            raise ArtifactError(f"input {described(value)} is dynamic (FE04)", where=path, hint=how_to_fix(value))
    if not any(map(has_open_batch, inputs)):
        what = f"takes one batch: {shapes_text(model)}"
        raise ArtifactError(what, where=path, hint="export it with --batch MIN:MAX for a range of batches")


def picture_size(model: onnx.ModelProto, batch: int, path: Path) -> InputSize:
    """Return the size of a graph's picture input, which has numbers for all but its batch, with a batch.

    Raises:
        ArtifactError: when it takes no pictures, or their height or width is open.
    """
    for value in network_inputs(model):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) == _PICTURE_RANK:
            height, width = (dims[place] for place in _sides(dims))
            if min(height, width) < 1:
                raise ArtifactError(f"input {described(value)} is dynamic (FE04)", where=path, hint=how_to_fix(value))
            return InputSize(height, width, batch)
    raise ArtifactError("has no picture input (B, C, H, W)", where=path, hint="leave out --batch")


def require_static(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph whose inputs have open dimensions.

    Raises:
        ArtifactError: names the input and its dimensions; the hint says how to give them numbers.
    """
    for value in network_inputs(model):
        if is_open(value):
            raise ArtifactError(f"input {described(value)} is dynamic (FE04)", where=path, hint=how_to_fix(value))


def described(value: ValueInfoProto) -> str:
    """Return an input's name and dimensions as text, ``'pixel_values' (batch, 3, height, width)``."""
    has_rank = value.type.tensor_type.HasField("shape")
    name = printable(value.name)
    return f"'{name}' ({', '.join(_dims_text(value))})" if has_rank else f"'{name}' (of unknown rank)"


def how_to_fix(value: ValueInfoProto) -> str:
    """Return the hint that says how to give an input's open dimensions numbers."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if has_open_batch(value):
        return "give it a batch: --batch 1; engine build takes a range too: --batch 1:8"
    if len(dims) == _PICTURE_RANK:
        height, width = (dims[place] if dims[place] > 0 else _USUAL_SIDE for place in _sides(dims))
        size = f"--input-size {height}x{width}, and --batch {max(1, dims[0])}"
        channels = dims[({1, 2, 3} - set(_sides(dims))).pop()]
        return f"give it a size: {size}" if channels > 0 else "export it with a fixed number of channels"
    return (
        "export it with static shapes; --input-size fixes only picture inputs (B, C, H, W) and inputs with their batch"
    )


def _dims_text(value: ValueInfoProto) -> list[str]:
    dims = value.type.tensor_type.shape.dim
    return [str(dim.dim_value) if dim.dim_value > 0 else printable(dim.dim_param) or "?" for dim in dims]


def fixed(model: onnx.ModelProto, size: InputSize, path: Path, *, keep_batch: bool = False) -> onnx.ModelProto:
    """Return a copy of a model with numbers for the open dimensions of its picture inputs.

    Dimensions of other inputs with the same symbolic name become the same number. Dimensions that are numbers already
    must agree with the size. With ``keep_batch`` first dimensions that are open stay so, and the size has no batch.

    Raises:
        ArtifactError: when the model takes no pictures, has another size, or an input stays open.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    pictures = [value for value in network_inputs(copy) if len(value.type.tensor_type.shape.dim) == _PICTURE_RANK]
    if not pictures:
        what = "has no picture input (B, C, H, W), so --input-size has no effect"
        raise ArtifactError(what, where=path, hint="leave out --input-size; export it with static shapes")
    named: dict[str, int] = {}
    for value in pictures:
        _fill(value, size, named, path, keep_batch=keep_batch)
    for value in network_inputs(copy):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if keep_batch and place == 0:
                continue
            if dim.dim_value < 1 and (number := named.get(dim.dim_param, size.batch if place == 0 else 0)):
                dim.dim_value = number
    for graph in graphs_in(copy):  # types that were inferred from open inputs no longer hold
        del graph.value_info[:]
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 1:
                dim.Clear()
    (require_open_batch if keep_batch else require_static)(copy, path)
    return copy


def _sides(dims: Sequence[int]) -> tuple[int, int]:
    """Return the axes of height and width: after the channels, or before them in TensorFlow's layout."""
    channels_last = dims[3] in (1, 3, 4) and dims[1] not in (1, 3, 4)
    return (1, 2) if channels_last else (2, 3)


def _fill(value: ValueInfoProto, size: InputSize, named: dict[str, int], path: Path, *, keep_batch: bool) -> None:
    dims = value.type.tensor_type.shape.dim
    height, width = _sides([dim.dim_value for dim in dims])
    wanted = {0: size.batch, height: size.height, width: size.width}
    for place, dim in enumerate(dims):
        if keep_batch and place == 0:
            continue
        number = wanted.get(place)
        if dim.dim_value > 0:
            if number not in (None, dim.dim_value):
                what = f"input {described(value)} has a fixed size, which is not {size}"
                raise ArtifactError(what, where=path, hint="leave out --input-size, or give the size that it has")
            continue
        if number is None:
            what = f"input {described(value)} has no number of channels"
            raise ArtifactError(what, where=path, hint="export it with a fixed number of channels")
        if dim.dim_param:
            named.setdefault(dim.dim_param, number)
        dim.dim_value = number
