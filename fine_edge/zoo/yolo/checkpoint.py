"""Reading checkpoints of ultralytics without running what is in them.

Layouts, told apart by what the file holds, never by its name:

* ``ultralytics``: a ``.pt`` of its trainer: a pickle of a whole ``DetectionModel``, as ``ema`` or ``model``;
* ``state_dict``: ``YOLO(...).model.state_dict()`` saved by ``torch.save``, or as safetensors;
* ``fine_edge``: our own.

What is trusted of a pickle: ``torch.load(weights_only=True)``, its restricted unpickler, with a list of names that a
detector's file holds (``_KNOWN``). No name leads to ultralytics' class or to any other code: each becomes an inert
record (:class:`_Record`) that keeps what the file says of the object and can do nothing. The weights are collected from
these records. A name that is not in the list is refused, and so nothing a file names is ever called; what tensors may
do wrong (sizes, types) torch checks itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from fine_edge.errors import WeightsError
from fine_edge.zoo.checkpoints import Checkpoint, State, learned, own, read_file, read_torch
from fine_edge.zoo.yolo.fusion import FusedConcat

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
    # A training checkpoint's loss, and its settings.
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
_DATA = {
    "numpy": ("dtype",),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
    "builtins": ("getattr",),  # a fused layer's forward
}
# Where ultralytics kept its classes before version 8.0.44.
_OLD = {
    "ultralytics.nn.modules": tuple(name for names in list(_ULTRALYTICS.values())[:3] for name in names),
    "ultralytics.yolo.utils": ("IterableSimpleNamespace",),
}
_KNOWN = [
    f"{module}.{name}"
    for group in (_TORCH, _ULTRALYTICS, _OLD, _OURS, _DATA)
    for module, names in group.items()
    for name in names
]


class _Record:
    """An object of a file: its attributes as the file says them. Made and filled by torch's unpickler alone."""

    def __init__(self, *_arguments: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by key, as ``state_dict`` would name them."""
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _entries(self.attributes.get(kind)):
                if isinstance(tensor, Tensor):
                    yield prefix + name, tensor
        for name, child in _entries(self.attributes.get("_modules")):
            if isinstance(child, _Record):
                yield from child.tensors(f"{prefix}{name}.")


def _entries(value: object) -> list[tuple[str, Any]]:
    return [(str(key), entry) for key, entry in value.items()] if isinstance(value, dict) else []


def _records() -> list[Any]:
    """An inert class for each known name; torch tells them apart by the class as well as by the name."""
    return [(type(name.rpartition(".")[2], (_Record,), {}), name) for name in _KNOWN]


def _model(data: object) -> _Record | None:
    """The model in a checkpoint of ultralytics' trainer, as its own loader takes it: ``ema`` before ``model``."""
    found = [data.get("ema"), data.get("model")] if isinstance(data, dict) else []
    return next((entry for entry in found if isinstance(entry, _Record)), None)


def _labels(model: _Record) -> tuple[str, ...] | None:
    """Class names by index, from ``names``: a dict or a list."""
    names = model.attributes.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _pickled(path: Path) -> Checkpoint | None:
    """A checkpoint of ultralytics' trainer; ``None`` where the file holds no model, but perhaps a state dict."""
    model = _model(read_torch(path, _records()))
    if model is None:
        return None
    try:
        state = dict(model.tensors())
    except RecursionError as error:
        raise WeightsError("its modules contain themselves", where=path) from error
    return Checkpoint(learned(_single(state)), "ultralytics", labels=_labels(model))


def _single(state: State) -> State:
    """Trainers save half precision."""
    return {key: tensor.detach().float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def read(path: Path) -> Checkpoint:
    """A checkpoint of any known layout.

    Raises:
        WeightsError: when the path holds no checkpoint, or one with names that no detector of ultralytics has.
    """
    if path.is_file() and path.suffix != ".safetensors" and (pickled := _pickled(path)):
        return pickled
    state, metadata = read_file(path)
    return own(state, metadata, path) or Checkpoint(learned(_single(state)), "state_dict")
