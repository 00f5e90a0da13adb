"""The catalogue of models by name: one line for each detector, and the paper's methods for its fusions.

This file is plain data, so that a device can list and name models without torch. A detector is built by its family; see
:mod:`fine_edge.zoo.family`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import get_args

from fine_edge.contract import Task
from fine_edge.errors import ConfigError, UnknownModelError
from fine_edge.fine_options import COMPLEXITY, METHOD_TITLES, PAPERS, AttentionName, FineOptions, MethodName
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.paper import PaperFigures, rows_of

# The name of the folder beside this file whose ``family.FAMILY`` builds the detector.
FamilyName = str


@dataclass(frozen=True)
class Library:
    """The facts about a family's library that are needed without importing it.

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


# The library of each family; where two share one, the first family injects FINE into the library's models.
LIBRARIES: dict[FamilyName, Library] = {
    "rtdetr": Library("transformers", states_input_size=True),
    "torchvision": Library("torchvision"),
    "segmentation": Library("torchvision"),
    "yolo": Library("ultralytics", "yolo", exporter="ultralytics export", saves_models=True),
}


@dataclass(frozen=True)
class Detector:
    """A detector of a library.

    Attributes:
        name: its name on the command line.
        family: the folder beside this file that builds it.
        variant: its name within the family.
        neck: the paper's name of its feature fusion.
        task: the kind of its outputs.
        input_hw: the input size in pixels at which the paper counts it, and the default of an export.
        preprocessing: the preprocessing from a picture to the input.
        methods: the fusion methods that the catalogue lists for it.
        suppresses: whether it finds objects more than once and drops all but the best by their overlap.
        samples: whether its decoder reads maps at computed positions, in one of the forms of ``--sampling``.
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
    samples: bool = False

    @property
    def library(self) -> Library:
        """Return the library of the detector's family; a family that is not listed needs torch alone."""
        return LIBRARIES.get(self.family, Library("torch"))


# RT-DETR is trained on stretched pictures, without normalisation.
_STRETCHED = Preprocessing()
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision pads behind the normalisation, with zeros, and resizes by torch's interpolation, which does not antialias.
_TORCHVISION = Preprocessing("letterbox", 1 / 255, *_IMAGENET, pad_value=None, antialias=False)
# Cityscapes' pictures have the shape of the input.
_CITYSCAPES = Preprocessing("stretch", 1 / 255, *_IMAGENET)
# ultralytics resizes by OpenCV, which does not antialias either, and pads both sides alike.
_ULTRALYTICS = Preprocessing("letterbox", align="center", antialias=False)
# Table 2 compares FINE with its rivals on two detectors, RT-DETR R18 and Faster R-CNN.
_ALL: tuple[MethodName, ...] = get_args(MethodName)
_SMALL, _SQUARE, _LARGE = (320, 320), (640, 640), (800, 800)

# All detectors; a new one of a known family is one line here.
DETECTORS: tuple[Detector, ...] = (
    Detector("rtdetr_r18", "rtdetr", "r18", "H-Enc", "detection", _SQUARE, _STRETCHED, _ALL, samples=True),
    Detector("rtdetr_r50", "rtdetr", "r50", "H-Enc", "detection", _SQUARE, _STRETCHED, samples=True),
    Detector("yolov5s", "yolo", "yolov5s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("yolov6s", "yolo", "yolov6s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    Detector("yolov8s", "yolo", "yolov8s", "PAFPN", "detection", _SQUARE, _ULTRALYTICS, suppresses=True),
    # Its head gives one box to each object, so that nothing is suppressed.
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


@dataclass(frozen=True)
class ModelEntry:
    """One model of the zoo: a detector and the method in its fusions.

    Attributes:
        name: its name on the command line.
        detector: the detector of a library.
        method: the method that refines or replaces its fusions; ``None`` for the unchanged detector.
        options: FINE's options; nothing reads them without FINE.
    """

    name: str
    detector: Detector
    method: MethodName | None = None
    options: FineOptions = PAPERS

    @property
    def attention(self) -> AttentionName | None:
        """Return FINE's attention strategy; ``None`` without FINE."""
        return self.options.attention if self.method == "fine" else None

    @property
    def family(self) -> FamilyName:
        """Return the name of the family that builds it."""
        return self.detector.family

    @property
    def variant(self) -> str:
        """Return the detector's name within its family."""
        return self.detector.variant

    @property
    def fusion(self) -> str:
        """Return the paper's name of the feature fusion."""
        return self.detector.neck + (f" + {METHOD_TITLES[self.method]}" if self.method else "")

    @property
    def complexity(self) -> str:
        """Return the complexity of the attention, as Table 3 prints it."""
        return COMPLEXITY[self.attention]

    @property
    def paper(self) -> PaperFigures | None:
        """Return the paper's figures at the detector's own input size, timed ones first; ``None`` without any."""
        rows = [row for row in rows_of(self.name) if row.input_hw == self.detector.input_hw]
        return rows[0] if rows else None


def _entries(detector: Detector) -> list[ModelEntry]:
    refined = [ModelEntry(f"{detector.name}_{method}", detector, method) for method in detector.methods]
    return [ModelEntry(detector.name, detector), *refined]


def _with_options(name: str) -> ModelEntry | None:
    """Return the entry of ``DETECTOR_fine_OPTIONS``, which every detector has; its name has them in their own order."""
    base, _, suffix = name.partition("_fine_")
    detector = next((d for d in DETECTORS if d.name == base), None)
    options = FineOptions.of_suffix(suffix)
    if detector is None or options is None or not options.changed():
        return None
    return ModelEntry(f"{base}_fine{options.suffix()}", detector, "fine", options)


def _catalog() -> dict[str, ModelEntry]:
    entries = [entry for detector in DETECTORS for entry in _entries(detector)]
    # Only Table 3's strategies are listed: every other combination of options is found by its name alone.
    table3 = [_with_options(f"rtdetr_r18_fine_{name}") for name in ("vanilla", "window", "area", "linear")]
    return {entry.name: entry for entry in (*entries, *filter(None, table3))}


CATALOG: dict[str, ModelEntry] = _catalog()


def is_model(name: str) -> bool:
    """Return whether a model is called ``name``."""
    entry = CATALOG.get(name) or _with_options(name)
    return entry is not None and entry.name == name


def find(name: str) -> ModelEntry:
    """Return the entry called ``name``: one of the catalogue, or any detector with FINE and options of it.

    Raises:
        UnknownModelError: naming the nearest names.
    """
    entry = CATALOG.get(name) or _with_options(name)
    if entry and entry.name == name:
        return entry
    # Options in another order name the same block, of which one name alone is in use: that one is the hint.
    near = [entry.name] if entry else difflib.get_close_matches(name, CATALOG, n=3, cutoff=0.4) or list(CATALOG)
    raise UnknownModelError(
        f"no model is called {name!r}", hint=f"nearest: {', '.join(near)} (all: python -m fine_edge zoo)"
    )


def with_fine(name: str, text: str | None) -> ModelEntry:
    """Return the entry called ``name``, its FINE with the options of ``--fine``; ``None`` for those that it has.

    Raises:
        UnknownModelError: when there is no such model.
        ConfigError: when it has no FINE, has options in its name already, or there is no such option.
    """
    entry = find(name)
    if text is None:
        return entry
    if entry.method != "fine":
        fine = f"{entry.detector.name}_fine"
        raise ConfigError(f"{name} has no FINE to change", where="--fine", hint=f"name {fine}, or leave --fine out")
    if entry.options.changed():
        what = f"{name} has options of FINE in its name already"
        raise ConfigError(what, where="--fine", hint=f"name {entry.detector.name}_fine, and give all by --fine")
    return find(f"{name}{FineOptions.parse(text).suffix()}")
