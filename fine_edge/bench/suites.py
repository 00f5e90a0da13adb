"""What is measured against what. One explicit entry per suite; its first row is the baseline of all ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fine_edge.errors import ConfigError


@dataclass(frozen=True)
class SuiteRow:
    """One artifact of a suite.

    Attributes:
        model: name in the zoo.
        raw: logits and boxes instead of postprocessed detections.
        exporter: ours, or ``plain``: torch.onnx on the transformers model as it comes.
    """

    model: str
    raw: bool = False
    exporter: Literal["fine_edge", "plain"] = "fine_edge"

    @property
    def label(self) -> str:
        """What tables call the row; unique within a suite."""
        return self.model if self.exporter == "fine_edge" else f"{self.model} ({self.exporter} torch.onnx)"


@dataclass(frozen=True)
class Suite:
    """Rows to be measured together; ``beside_paper`` says whether the paper's figures describe these very rows."""

    name: str
    title: str
    rows: tuple[SuiteRow, ...]
    beside_paper: bool


SUITES: dict[str, Suite] = {
    "table3": Suite(
        "table3",
        "Table 3: attention strategies of FINE on RT-DETR R18",
        (
            SuiteRow("rtdetr_r18"),
            SuiteRow("rtdetr_r18_fine_vanilla"),
            SuiteRow("rtdetr_r18_fine_window"),
            SuiteRow("rtdetr_r18_fine_area"),
            SuiteRow("rtdetr_r18_fine_linear"),
            SuiteRow("rtdetr_r18_fine"),
        ),
        beside_paper=True,
    ),
    "table1": Suite(
        "table1",
        "Table 1: detectors with and without FINE (those that this version has)",
        (
            SuiteRow("rtdetr_r18"),
            SuiteRow("rtdetr_r18_fine"),
            SuiteRow("rtdetr_r50"),
            SuiteRow("rtdetr_r50_fine"),
        ),
        beside_paper=True,
    ),
    "exporters": Suite(
        "exporters",
        "Exporters: RT-DETR R18, raw outputs, plain torch.onnx against ours",
        (
            SuiteRow("rtdetr_r18", raw=True, exporter="plain"),
            SuiteRow("rtdetr_r18", raw=True),
            SuiteRow("rtdetr_r18_fine", raw=True),
        ),
        beside_paper=False,
    ),
}


def find(name: str) -> Suite:
    """The suite called ``name``.

    Raises:
        ConfigError: naming those there are.
    """
    if name not in SUITES:
        raise ConfigError(f"no suite is called {name!r}", where="--suite", mend=f"known: {', '.join(SUITES)}")
    return SUITES[name]
