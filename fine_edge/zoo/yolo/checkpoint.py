"""Reading of ultralytics' checkpoints without running their code.

The layouts are distinguished by the file's contents, never by its name:

* ``ultralytics``: a ``.pt`` of its trainer, a pickle of a whole ``DetectionModel`` as ``ema`` or ``model``;
* ``state_dict``: ``YOLO(...).model.state_dict()`` saved by ``torch.save``, or as safetensors;
* ``fine_edge``: our own.

A pickle is read by torch's restricted unpickler, ``torch.load(weights_only=True)``, with a list of names that a
detector's file holds (``_ALLOWED``, and layers of ultralytics and torch of any name). No name leads to ultralytics'
class or to any other code. Each becomes a :class:`fine_edge.zoo.inert.InertRecord`, which holds the object's attributes
and has no behaviour. The weights are collected from these records. A name outside the list is refused, so
that nothing that a file names is ever called. The attributes of the layers are compared with the model that is built
(:mod:`fine_edge.zoo.yolo.stated`), and :mod:`fine_edge.zoo.tensors` checks the tensors' claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.zoo.checkpoints import Checkpoint, class_names, learned, names_in, own, read_file, read_torch
from fine_edge.zoo.inert import InertRecord, records
from fine_edge.zoo.tensors import plain
from fine_edge.zoo.yolo.fusion import FusedConcat
from fine_edge.zoo.yolo.stated import name_of, require_detector, stated_structure, trained_hw

# A key that every YOLO of the zoo has.
ANCHORS = ("model.0.conv.weight",)

_TORCH = {
    "torch.nn.modules.activation": ("Identity", "LeakyReLU", "ReLU", "SiLU", "Sigmoid"),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.container": ("ModuleList", "Sequential"),
    "torch.nn.modules.conv": ("Conv2d", "ConvTranspose2d"),
    "torch.nn.modules.linear": ("Identity", "Linear"),
    "torch.nn.modules.normalization": ("LayerNorm",),
    "torch.nn.modules.pooling": ("AvgPool2d", "MaxPool2d"),
    "torch.nn.modules.upsampling": ("Upsample",),
}
_ULTRALYTICS = {
    "ultralytics.nn.modules.block": (
        *("A2C2f", "AAttn", "ABlock", "Attention", "Bottleneck", "C2f", "C2fCIB", "C3", "C3k", "C3k2", "CIB", "DFL"),
        *("PSA", "RepVGGDW", "SCDown", "SPPF"),
    ),
    "ultralytics.nn.modules.conv": ("Concat", "Conv", "DWConv"),
    "ultralytics.nn.modules.head": ("Detect", "v10Detect"),
    "ultralytics.nn.tasks": ("DetectionModel", "YOLOv10DetectionModel"),
    # A training checkpoint also holds its loss and its settings.
    "ultralytics.utils": ("IterableSimpleNamespace",),
    "ultralytics.utils.loss": ("BboxLoss", "DFLoss", "E2EDetectLoss", "E2ELoss", "v10DetectLoss", "v8DetectionLoss"),
    "ultralytics.utils.tal": ("TaskAlignedAssigner",),
    "torch.nn.modules.loss": ("BCEWithLogitsLoss",),
}
_OURS = {
    "fine_edge.fusion.config": ("FineConfig",),
    "fine_edge.fusion.fine": ("FeedForward", "Fine"),
    "fine_edge.fusion.sampling": ("DepthwiseDown",),
    FusedConcat.__module__: (FusedConcat.__name__,),
}
# The modules of ultralytics' classes before version 8.0.44.
_OLD = {
    "ultralytics.nn.modules": tuple(name for names in list(_ULTRALYTICS.values())[:3] for name in names),
    "ultralytics.yolo.utils": ("IterableSimpleNamespace",),
}
_ALLOWED = [
    "builtins.getattr",  # for the forward method of a fused layer
    *(
        f"{module}.{name}"
        for group in (_TORCH, _ULTRALYTICS, _OLD, _OURS)
        for module, names in group.items()
        for name in names
    ),
]
# These modules hold only layers and settings. All their names become records, so that a message can name the model.
_LAYERS = ("ultralytics.nn.", "ultralytics.utils.", "torch.nn.modules.")


def allowed_records(path: Path) -> list[Any]:
    """Return inert classes for the names that a file of ultralytics may hold."""
    return records([*_ALLOWED, *(name for name in names_in(path) if name.startswith(_LAYERS) and name not in _ALLOWED)])


def _model(data: object) -> InertRecord | None:
    """Return the model in a checkpoint of ultralytics' trainer; as in its own loader, ``ema`` before ``model``."""
    found = [data.get("ema"), data.get("model")] if isinstance(data, dict) else [data]
    return next((entry for entry in found if isinstance(entry, InertRecord) and "_modules" in entry.attributes), None)


def _labels(names: object, path: Path) -> tuple[str, ...] | None:
    """Return class names by index from ``names`` of a model or beside its state, a dict or a list."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise WeightsError(
                f"names has {len(names)} entries, but not for the classes 0 to {len(names) - 1}",
                where=path,
                hint="number the classes from 0 on without gaps",
            )
        names = [names[index] for index in range(len(names))]
    return class_names(names, path) if isinstance(names, list) and names else None


def _pickled(path: Path) -> Checkpoint | None:
    """Read a checkpoint of ultralytics' trainer; ``None`` where the file holds no model, but perhaps a state dict."""
    data = read_torch(path, allowed_records(path))
    model = _model(data)
    if model is None:
        return None
    require_detector(model, path)
    try:
        state = plain(dict(model.tensors()), path)
        stated = stated_structure(model, path)
    except RecursionError as error:
        raise WeightsError("its modules contain themselves", where=path) from error
    if not state:
        raise WeightsError("holds no tensor", where=path)
    # ultralytics fuses batch norms for inference; such weights fit no model that is built anew.
    normed = any(key.endswith("running_var") for key in state)
    return Checkpoint(
        learned(state),
        "ultralytics",
        labels=_labels(model.attributes.get("names"), path),
        settings=stated,
        named=f"{name_of(model)} of ultralytics" + ("" if normed else ", its batch norms fused; save it before that"),
        trained_hw=trained_hw(data),
    )


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Raises:
        WeightsError: when the path holds no checkpoint, or one with names that no detector of ultralytics has.
    """
    if path.is_file() and path.suffix != ".safetensors" and (pickled := _pickled(path)):
        return pickled
    found = read_file(path, ANCHORS)
    names = found.beside.get("names")
    return own(found, path) or Checkpoint(learned(found.state), "state_dict", labels=_labels(names, path))
