"""The suites of the bench, each made of groups of artifacts that are measured in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from fine_edge.contract import SamplingName
from fine_edge.engine.options import EnginePrecision
from fine_edge.errors import ConfigError
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo import catalog


@dataclass(frozen=True)
class SuiteRow:
    """One artifact of a suite.

    Attributes:
        model: name in the zoo.
        raw: dense outputs of the network instead of what postprocessing leaves of them.
        exporter: ours, or ``plain``: what the model's own library writes, or torch.onnx on the model as it comes; or
            ``foreign``: somebody's, without a contract.
        sampling: how RT-DETR's decoder reads maps; ``grid`` is what published boards have run.
        beside: of a baseline that is measured in several groups, what it is measured beside.
        precision: of this artifact, where it is not what the whole suite is measured in.
    """

    model: str
    raw: bool = False
    exporter: Literal["fine_edge", "plain", "foreign"] = "fine_edge"
    beside: str = ""
    precision: EnginePrecision | None = None
    sampling: SamplingName = "rows"

    @property
    def decodes(self) -> bool:
        """Return whether its outputs are decoded to what is found in a picture."""
        return not self.raw and self.exporter == "fine_edge"

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the steps from a picture to the input of an artifact without a contract."""
        return catalog.find(self.model).detector.preprocessing

    @property
    def label(self) -> str:
        """Return what tables call the row; it is unique within a suite."""
        if self.exporter == "plain":
            return f"{self.model} ({catalog.find(self.model).detector.library.exporter or 'plain torch.onnx'})"
        return f"{self.model} (beside {self.beside})" if self.beside else self.model


@dataclass(frozen=True)
class Group:
    """A group of rows that are loaded together and measured in the same rounds; the first is the baseline."""

    rows: tuple[SuiteRow, ...]

    @property
    def name(self) -> str:
        """Return the detector that the group is about."""
        return self.rows[0].model


@dataclass(frozen=True)
class Suite:
    """A list of groups that are measured one after the other.

    Attributes:
        name: what ``--suite`` takes.
        title: for people.
        groups: in the order of measuring.
        paper_table: number of the paper's table whose figures describe these very rows; ``None``: there is none.
    """

    name: str
    title: str
    groups: tuple[Group, ...]
    paper_table: str | None = None

    @property
    def rows(self) -> tuple[SuiteRow, ...]:
        """Return the rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    def only(self, patterns: Sequence[str]) -> Suite:
        """Return the suite with the groups whose name matches any shell pattern, and with all when there is no pattern.

        Raises:
            ConfigError: when none does, naming those there are.
        """
        found = tuple(
            group for group in self.groups if any(fnmatchcase(group.name, pattern) for pattern in patterns or ("*",))
        )
        names = list(dict.fromkeys(group.name for group in self.groups))
        if not found:
            what = f"no group of {self.name} matches {', '.join(map(repr, patterns))}"
            raise ConfigError(what, where="--only", hint=f"known: {', '.join(names)}")
        if len(found) == len(self.groups):
            return self
        chosen = ", ".join(dict.fromkeys(group.name for group in found))
        return replace(self, title=f"{self.title}, {chosen} only", groups=found)


def _group(detector: str, *variants: str) -> Group:
    """Return a group of a detector and its variants with other fusions."""
    return Group((SuiteRow(detector), *(SuiteRow(f"{detector}_{variant}") for variant in variants)))


def _pairs(detector: str, *variants: str) -> tuple[Group, ...]:
    """Return a group for each variant, for detectors of which memory holds two but not all."""
    return tuple(Group((SuiteRow(detector, beside=variant), SuiteRow(f"{detector}_{variant}"))) for variant in variants)


def _exporters(model: str, *, raw: bool) -> Group:
    """Return a group of the library's own export and ours."""
    return Group((SuiteRow(model, raw, "plain"), SuiteRow(model, raw)))


_RIVALS = ("sni", "fapn", "adafpn", "mgc", "fine")
_STRATEGIES = ("fine_vanilla", "fine_window", "fine_area", "fine_linear", "fine")

_ALL = (
    Suite(
        "table3",
        "Table 3: attention strategies of FINE on RT-DETR R18",
        (_group("rtdetr_r18", *_STRATEGIES),),
        paper_table="3",
    ),
    Suite(
        "table1",
        "Table 1: real-time detectors with and without FINE",
        tuple(_group(name, "fine") for name in ("rtdetr_r18", "rtdetr_r50", "yolov8s", "yolov10s", "yolov12s")),
        paper_table="1",
    ),
    Suite(
        "table2",
        "Table 2: FINE and other fusion methods",
        # Each Faster R-CNN takes some 1.2 GiB.
        (*_pairs("fasterrcnn_r50", *_RIVALS), _group("rtdetr_r18", *_RIVALS)),
        paper_table="2",
    ),
    Suite(
        "table7",
        "Table 7: segmentation with and without FINE",
        tuple(_group(name, "fine") for name in ("maskrcnn_r50", "semantic_fpn_r50", "panoptic_fpn_r50")),
        paper_table="7",
    ),
    Suite(
        "small",
        "A small detector with and without FINE",
        (_group("fcos_mobilenetv3", "fine"),),
    ),
    Suite(
        "exporters",
        "Exporters: the library's own ONNX against ours, same weights (RT-DETR and YOLO with raw outputs)",
        (
            Group((*_exporters("rtdetr_r18", raw=True).rows, SuiteRow("rtdetr_r18_fine", raw=True))),
            *(_exporters(name, raw=True) for name in ("yolov8s", "yolov10s", "yolov12s")),
            *(_exporters(name, raw=False) for name in ("retinanet_r50", "fasterrcnn_r50")),
        ),
    ),
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in _ALL}
DEFAULT_SUITE = "table3"


def find(name: str) -> Suite:
    """Return the suite called ``name``.

    Raises:
        ConfigError: naming those there are.
    """
    if name not in SUITES:
        raise ConfigError(f"no suite is called {name!r}", where="--suite", hint=f"known: {', '.join(SUITES)}")
    return SUITES[name]
