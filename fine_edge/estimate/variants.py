"""Variants of FINE on RT-DETR R18 that the catalogue does not name; each is exported as an FP16 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from fine_edge.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from torch import nn

MODEL, BASELINE = "rtdetr_r18_fine", "rtdetr_r18"
Axis = Literal["attention", "r", "k", "input-size", "width"]
AXES: tuple[Axis, ...] = get_args(Axis)
# Values of a sweep by axis, unless others are given.  ``k`` is the value of the fusion at l = 3, then at l = 2;
# ``width`` is FINE's feed-forward in units of C.
DEFAULTS: dict[Axis, tuple[str, ...]] = {
    "attention": ("aats", "linear", "area", "window", "vanilla"),
    "r": ("1", "2", "4"),
    "k": ("1:1", "1:2", "2:2", "2:4"),
    "input-size": ("480", "640", "800"),
    "width": ("0", "1", "2", "4"),
}
# The paper's choice by axis.
PAPERS: dict[Axis, str] = {"attention": "aats", "r": "2", "k": "1:2", "input-size": "640", "width": "2"}
_SIDE_PX = 640
_FIELDS: dict[Axis, str] = {"attention": "attention", "r": "r", "k": "k", "width": "ffn_ratio"}


@dataclass(frozen=True)
class Variant:
    """One point of a sweep: the paper's FINE with one choice changed, or the detector without FINE."""

    axis: Axis
    value: str
    has_fine: bool = True

    @property
    def label(self) -> str:
        """Return the name for tables and pictures."""
        if not self.has_fine:
            return f"without FINE, {self.value}" if self.axis == "input-size" else "without FINE"
        chosen = self.value if self.axis == "attention" else f"{self.axis} {self.value}"
        return f"{chosen} (paper)" if self.value == PAPERS[self.axis] else chosen

    @property
    def side_px(self) -> int:
        """Return the side of the square input."""
        return int(self.value) if self.axis == "input-size" else _SIDE_PX

    @property
    def without_fine(self) -> Variant:
        """Return the detector without FINE to compare with."""
        return Variant(self.axis, self.value if self.axis == "input-size" else "", has_fine=False)


def variants(axis: str, values: str | None) -> list[Variant]:
    """Return the points of a sweep, from a list such as ``1,2,4``.

    Raises:
        ConfigError: when there is no such axis, or a value does not belong to it.
    """
    chosen = next((name for name in AXES if name == axis), None)
    if chosen is None:
        raise ConfigError(f"nothing is swept over {axis!r}", where="--over", hint=f"known: {', '.join(AXES)}")
    given = tuple(values.split(",")) if values else DEFAULTS[chosen]
    for value in given:
        if not _is_value(chosen, value):
            example = ",".join(DEFAULTS[chosen])
            raise ConfigError(f"{value!r} is no value of {chosen}", where="--values", hint=f"such as {example}")
    return [Variant(chosen, value) for value in given]


def _is_value(axis: Axis, value: str) -> bool:
    if axis == "attention":
        return value in DEFAULTS[axis]
    if axis == "k":
        return all(part.isdigit() and int(part) for part in value.split(":")) and value.count(":") <= 1
    # RT-DETR's deepest level has a stride of 32. A width of 0 leaves the feed-forward out.
    return value.isdigit() and (axis == "width" or int(value) > 0) and (axis != "input-size" or int(value) % 32 == 0)


def export_variant(variant: Variant, folder: Path) -> Path:
    """Write the variant's FP16 graph, with seeded random weights, and return its path.

    Raises:
        MissingExtraError: on a machine without torch.
        ConfigError: when FINE does not allow this configuration.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "export") from error
    import onnx

    from fine_edge.export.trace import trace
    from fine_edge.files import written_together
    from fine_edge.graph.convert import kept_by_exporter, to_fp16
    from fine_edge.zoo.catalog import find
    from fine_edge.zoo.family import GraphForm
    from fine_edge.zoo.load import load

    detector = load(find(MODEL if variant.has_fine else BASELINE))
    apply_variant(detector.model, variant)
    side = variant.side_px
    form = GraphForm(1, side, side, False, "graph")
    names = [spec.name for spec in detector.family.outputs(detector.model, form)]
    lowered = detector.family.lowered(detector.model, form)
    graph = trace(lowered, torch.zeros(1, 3, side, side), ["images"], names)
    choice = f"{variant.axis}-{variant.value.replace(':', '-')}" if variant.value else "640"
    path = folder / f"{detector.entry.name}.{choice}.fp16.onnx"
    with written_together(folder, path.name) as partial:
        onnx.save(to_fp16(graph, keep_fp32=set(kept_by_exporter(graph))), partial / path.name)
    return path


def apply_variant(model: nn.Module, variant: Variant) -> None:
    """Replace the model's FINE blocks by blocks of the variant's configuration."""
    from dataclasses import replace

    from fine_edge.fusion import Fine

    field = _FIELDS.get(variant.axis)
    if field is None or not variant.has_fine:
        return
    blocks = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, Fine)
    ]
    for (parent, name), value in zip(blocks, _values(variant, len(blocks)), strict=True):
        old = getattr(parent, name)
        new = Fine(replace(old.config, **{field: value}))
        setattr(parent, name, new.train(old.training))


def _values(variant: Variant, blocks: int) -> Sequence[str | int]:
    """Return the value for each block, deepest first."""
    if variant.axis == "attention":
        return [variant.value] * blocks
    given = [int(part) for part in variant.value.split(":")]
    return given if len(given) == blocks else given[:1] * blocks
