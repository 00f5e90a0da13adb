"""Every model by name: detectors, one line each, and what the paper puts into their fusions.

This file is plain data, so that the device can list and name models without torch; what
builds a detector is its family, see :mod:`fine_edge.zoo.family`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from fine_edge.errors import UnknownModelError
from fine_edge.method_names import COMPLEXITY, METHOD_TITLES, AttentionName, MethodName
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.paper import PaperFigures, rows_of

FamilyName = str
"""Name of the folder beside this file whose ``family.FAMILY`` builds the detector."""
Task = Literal["detection", "instance", "semantic", "panoptic"]


@dataclass(frozen=True)
class Library:
    """What is known of the library behind a family without importing it.

    Attributes:
        package: the Python package, which also names the library.
        extra: the extra of this project that installs the package.
        exporter: the name of the library's own ONNX exporter; ``None`` where users call torch.onnx.
        saves_models: whether the library's checkpoints are pickles of whole models instead of state dicts.
        states_input_size: whether a folder of its checkpoints states the input size in ``preprocessor_config.json``.
    """

    package: str
    extra: str = "export"
    exporter: str | None = None
    saves_models: bool = False
    states_input_size: bool = False


LIBRARIES: dict[FamilyName, Library] = {
    "rtdetr": Library("transformers", states_input_size=True),
    "torchvision": Library("torchvision"),
    "segmentation": Library("torchvision"),
    "yolo": Library("ultralytics", "yolo", exporter="ultralytics export", saves_models=True),
}
"""The library of each family; where two share one, the first family injects FINE into the library's models."""


@dataclass(frozen=True)
class Detector:
    """A detector as its library has it.

    Attributes:
        name: what commands take.
        family: the file or folder beside this one that builds it.
        variant: what the family knows it by.
        neck: the paper's name of its feature fusion.
        task: what it finds.
        input_hw: the size that the paper counts it at, pixels; what an export takes unless told otherwise.
        preprocessing: from a picture to its input.
        methods: what the catalogue puts into its fusions.
        suppresses: whether it finds objects more than once and drops all but the best by their overlap.
    """

    name: str
    family: FamilyName
    variant: str
    neck: str
    task: Task
    input_hw: tuple[int, int]
    preprocessing: Preprocessing
    methods: tuple[MethodName, ...] = ("fine",)
    suppresses: bool = False

    @property
    def library(self) -> Library:
        """Return the library of the detector's family; a family that is not listed needs torch alone."""
        return LIBRARIES.get(self.family, Library("torch"))


# RT-DETR is trained on stretched pictures, without mean and deviation.
_STRETCHED = Preprocessing()
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision pads behind the normalisation, with zeros.
_TORCHVISION = Preprocessing("letterbox", 1 / 255, *_IMAGENET, pad_value=None, antialias=False)
# Cityscapes' pictures have the shape of the input.
_CITYSCAPES = Preprocessing("stretch", 1 / 255, *_IMAGENET)
_ULTRALYTICS = Preprocessing("letterbox", align="center", antialias=False)
_ALL: tuple[MethodName, ...] = get_args(MethodName)
_SMALL, _SQUARE, _LARGE = (320, 320), (640, 640), (800, 800)

DETECTORS: tuple[Detector, ...] = (
    Detector("rtdetr_r18", "rtdetr", "r18", "H-Enc", "detection", _SQUARE, _STRETCHED, _ALL),
    Detector("rtdetr_r50", "rtdetr", "r50", "H-Enc", "detection", _SQUARE, _STRETCHED),
    Detector("yolov5s", "yolo", "yolov5s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("yolov6s", "yolo", "yolov6s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("yolov8s", "yolo", "yolov8s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("yolov10s", "yolo", "yolov10s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS),
    Detector("yolov12s", "yolo", "yolov12s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("fasterrcnn_r50", "torchvision", "fasterrcnn", "FPN", "detection", _LARGE, _TORCHVISION, _ALL, True),
    Detector("retinanet_r50", "torchvision", "retinanet", "FPN", "detection", _LARGE, _TORCHVISION, suppresses=True),
    Detector("fcos_r50", "torchvision", "fcos", "FPN", "detection", _LARGE, _TORCHVISION, suppresses=True),
    Detector(
        "fcos_mobilenetv3", "torchvision", "fcos_mobilenetv3", "FPN", "detection", _SMALL, _TORCHVISION, suppresses=True
    ),
    Detector("maskrcnn_r50", "torchvision", "maskrcnn", "FPN", "instance", _LARGE, _TORCHVISION, suppresses=True),
    Detector("semantic_fpn_r50", "segmentation", "semantic", "FPN", "semantic", (512, 1024), _CITYSCAPES),
    Detector("panoptic_fpn_r50", "segmentation", "panoptic", "FPN", "panoptic", _SQUARE, _TORCHVISION, suppresses=True),
)
"""Adding a detector of a known family is one line here."""


@dataclass(frozen=True)
class ModelEntry:
    """One model of the zoo: a detector and what is in its fusions.

    Attributes:
        name: what commands take.
        detector: as its library has it.
        method: what refines or replaces its fusions, ``None`` for the detector as it is.
        attention: FINE's attention strategy, ``None`` without FINE.
    """

    name: str
    detector: Detector
    method: MethodName | None = None
    attention: AttentionName | None = None

    @property
    def family(self) -> FamilyName:
        """What builds it."""
        return self.detector.family

    @property
    def variant(self) -> str:
        """What its family knows it by."""
        return self.detector.variant

    @property
    def fusion(self) -> str:
        """The paper's name of the feature fusion."""
        return self.detector.neck + (f" + {METHOD_TITLES[self.method]}" if self.method else "")

    @property
    def complexity(self) -> str:
        """Of the attention, as Table 3 prints it."""
        return COMPLEXITY[self.attention]

    @property
    def paper(self) -> PaperFigures | None:
        """The paper's figures at the detector's own input size, where it has any; timed ones first."""
        rows = [row for row in rows_of(self.name) if row.input_hw == self.detector.input_hw]
        return rows[0] if rows else None


def _entries(detector: Detector) -> list[ModelEntry]:
    models = [ModelEntry(detector.name, detector)]
    for method in detector.methods:
        attention: AttentionName | None = "aats" if method == "fine" else None
        models.append(ModelEntry(f"{detector.name}_{method}", detector, method, attention))
    return models


def _with_attention(name: str) -> ModelEntry | None:
    """``DETECTOR_fine_STRATEGY``: every detector takes every strategy of Table 3, listed or not."""
    base, _, strategy = name.rpartition("_fine_")
    detector = next((d for d in DETECTORS if d.name == base), None)
    attention = next((a for a in get_args(AttentionName) if a == strategy and a != "aats"), None)
    return ModelEntry(name, detector, "fine", attention) if detector and attention else None


def _catalog() -> dict[str, ModelEntry]:
    entries = [entry for detector in DETECTORS for entry in _entries(detector)]
    table3 = [_with_attention(f"rtdetr_r18_fine_{name}") for name in ("vanilla", "window", "area", "linear")]
    return {entry.name: entry for entry in (*entries, *filter(None, table3))}


CATALOG: dict[str, ModelEntry] = _catalog()


def find(name: str) -> ModelEntry:
    """The entry called ``name``: one of the catalogue, or any detector with ``_fine_`` and a strategy.

    Raises:
        UnknownModelError: naming the nearest names.
    """
    entry = CATALOG.get(name) or _with_attention(name)
    if entry:
        return entry
    near = difflib.get_close_matches(name, CATALOG, n=3, cutoff=0.4) or list(CATALOG)
    raise UnknownModelError(
        f"no model is called {name!r}", hint=f"nearest: {', '.join(near)} (all: python -m fine_edge zoo)"
    )
