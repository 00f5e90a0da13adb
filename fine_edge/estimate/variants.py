"""Variants of FINE on RT-DETR R18 that the catalogue has no names for, each exported to an FP16 graph of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from fine_edge.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from torch import nn

MODEL = "rtdetr_r18_fine"
Axis = Literal["attention", "r", "k", "input-size", "width"]
AXES: tuple[Axis, ...] = get_args(Axis)
DEFAULTS: dict[Axis, tuple[str, ...]] = {
    "attention": ("aats", "linear", "area", "window", "vanilla"),
    "r": ("1", "2", "4"),
    "k": ("1", "2"),
    "input-size": ("480", "640", "800"),
    "width": ("0", "1", "2", "4"),
}
"""What is swept over unless values are given; ``width`` is FINE's feed-forward in units of C."""
_SIDE_PX = 640
_FIELDS: dict[Axis, str] = {"attention": "attention", "r": "r", "k": "k", "width": "ffn_ratio"}


@dataclass(frozen=True)
class Variant:
    """One point of a sweep: FINE as the paper has it but for one choice."""

    axis: Axis
    value: str

    @property
    def label(self) -> str:
        """As tables and pictures call it."""
        return self.value if self.axis == "attention" else f"{self.axis} {self.value}"

    @property
    def side_px(self) -> int:
        """Of the square input."""
        return int(self.value) if self.axis == "input-size" else _SIDE_PX


def variants(axis: str, values: str | None) -> list[Variant]:
    """Points of a sweep, from a list such as ``1,2,4``.

    Raises:
        ConfigError: for an axis that there is none of, or a value that is none of its own.
    """
    known = next((name for name in AXES if name == axis), None)
    if known is None:
        raise ConfigError(f"nothing is swept over {axis!r}", where="--over", mend=f"known: {', '.join(AXES)}")
    given = tuple(values.split(",")) if values else DEFAULTS[known]
    for value in given:
        right = value in DEFAULTS["attention"] if known == "attention" else value.isdigit()
        if not right or (known == "input-size" and (int(value) % 32 or not int(value))):
            example = ",".join(DEFAULTS[known])
            raise ConfigError(f"{value!r} is no value of {known}", where="--values", mend=f"such as {example}")
    return [Variant(known, value) for value in given]


def export_variant(variant: Variant, folder: Path) -> Path:
    """Write the variant's FP16 graph, with seeded random weights.

    Raises:
        MissingExtraError: on a machine without torch.
        ConfigError: when FINE cannot be configured so.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "export") from error
    import onnx

    from fine_edge.atomic import written_together
    from fine_edge.export.lowering import lower
    from fine_edge.export.trace import trace
    from fine_edge.graph.fp16 import to_fp16
    from fine_edge.graph.keep_list import kept_by_exporter
    from fine_edge.zoo.catalog import find
    from fine_edge.zoo.families import family_of
    from fine_edge.zoo.family import GraphForm
    from fine_edge.zoo.load import load

    detector = load(find(MODEL))
    _change(detector.model, variant)
    side = variant.side_px
    form = GraphForm(1, side, side, False, "graph")
    names = [spec.name for spec in family_of(detector.entry.family).outputs(detector.model, form)]
    lowered = lower(detector.model, detector.entry.family, form)
    graph = trace(lowered, torch.zeros(1, 3, side, side), ["images"], names)
    path = folder / f"{MODEL}.{variant.axis}-{variant.value}.fp16.onnx"
    with written_together(folder, path.name) as partial:
        onnx.save(to_fp16(graph, keep_fp32=set(kept_by_exporter(graph))), partial / path.name)
    return path


def _change(model: nn.Module, variant: Variant) -> None:
    """Put FINE blocks of another configuration in the place of the paper's."""
    from dataclasses import replace

    from fine_edge.fusion import Fine

    field = _FIELDS.get(variant.axis)
    if field is None:
        return
    value = variant.value if variant.axis == "attention" else int(variant.value)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Fine):
                block = Fine(replace(child.config, **{field: value}))  # type: ignore[arg-type]  # by the axis
                setattr(parent, name, block.train(child.training))
