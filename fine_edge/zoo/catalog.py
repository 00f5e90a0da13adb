"""Every model by name: one explicit entry each, with the paper's figures beside it.

This file is plain data, so that the device can list and name models without torch; the
builder of a family lives in the file named by ``family``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from fine_edge.errors import UnknownModelError

Family = Literal["rtdetr"]


@dataclass(frozen=True)
class PaperFigures:
    """What the paper prints for a model. FPS and latency: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640.

    ``mem_mb`` is the paper's own Mem column, FP32 activations of unfused attention; see METHOD.md.
    """

    table: str
    params_m: float
    flops_g: float
    fps: float | None = None
    latency_ms: float | None = None
    mem_mb: float | None = None
    ap: float | None = None


@dataclass(frozen=True)
class ModelEntry:
    """One detector of the zoo.

    Attributes:
        name: what commands take.
        family: the file under ``fine_edge/zoo`` that builds it.
        variant: size within the family, such as ``r18``.
        fusion: the paper's name of the feature fusion.
        attention: FINE's attention strategy, ``None`` without FINE.
        complexity: of that attention, as Table 3 prints it.
        paper: the paper's figures, where it has any.
        note: why a figure differs from the paper's by more than a rounding, where it does.
    """

    name: str
    family: Family
    variant: str
    fusion: str
    attention: Literal["aats", "vanilla", "window", "area", "linear"] | None
    complexity: str
    paper: PaperFigures | None
    note: str = ""


_R18 = "rtdetr_r18"
# Table 3 gives FINE's rows as differences from the baseline (61.74 G, 64.50 MB); the sums stand here.
_TABLE3_BASE = PaperFigures("1, 3", 20.2, 61.74, 80, 12.81, 64.50, 38.7)

CATALOG: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(_R18, "rtdetr", "r18", "H-Enc", None, "-", _TABLE3_BASE),
        ModelEntry(
            f"{_R18}_fine",
            "rtdetr",
            "r18",
            "H-Enc + FINE",
            "aats",
            "O(HlWl/(rk)² · HhWh/k²)",
            PaperFigures("1, 3", 21.2, 62.9, 78, 13.24, 65.67, 39.7),
        ),
        ModelEntry(
            f"{_R18}_fine_vanilla",
            "rtdetr",
            "r18",
            "H-Enc + FINE",
            "vanilla",
            "O(HlWl · HhWh)",
            PaperFigures("3", 21.2, 79.74, 57, 17.74, 1287.98, 39.5),
        ),
        ModelEntry(
            f"{_R18}_fine_window",
            "rtdetr",
            "r18",
            "H-Enc + FINE",
            "window",
            "O(HlWl · M²)",
            PaperFigures("3", 21.2, 70.64, 68, 15.05, 129.61, 39.7),
            "adds 8.90 G as the paper has it, on a baseline that counts 0.10 G less than the paper's.",
        ),
        ModelEntry(
            f"{_R18}_fine_area",
            "rtdetr",
            "r18",
            "H-Enc + FINE",
            "area",
            "O(HlWl · HhWh / A)",
            PaperFigures("3", 21.2, 71.74, 69, 14.71, 130.17, 39.2),
            "adds 9.65 G where the paper has 10.0: a positional depthwise convolution, which YOLOv12's area"
            " attention has and the paper does not mention, would add 0.2 to 0.3 G.",
        ),
        ModelEntry(
            f"{_R18}_fine_linear",
            "rtdetr",
            "r18",
            "H-Enc + FINE",
            "linear",
            "O(HlWl + HhWh)",
            PaperFigures("3", 21.2, 68.74, 64, 16.05, 82.92, 39.0),
            "adds 6.94 G where the paper has 7.0, on a baseline that counts 0.10 G less than the paper's.",
        ),
        ModelEntry("rtdetr_r50", "rtdetr", "r50", "H-Enc", None, "-", PaperFigures("1", 42.9, 138.0, 40, ap=52.8)),
        ModelEntry(
            "rtdetr_r50_fine",
            "rtdetr",
            "r50",
            "H-Enc + FINE",
            "aats",
            "O(HlWl/(rk)² · HhWh/k²)",
            PaperFigures("1", 44.0, 139.2, 40, ap=53.3),
        ),
    )
}


def find(name: str) -> ModelEntry:
    """The entry called ``name``.

    Raises:
        UnknownModelError: naming the nearest names.
    """
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name, CATALOG, n=3, cutoff=0.4) or list(CATALOG)
    raise UnknownModelError(
        f"no model is called {name!r}", mend=f"nearest: {', '.join(near)} (all: python -m fine_edge.zoo)"
    )
