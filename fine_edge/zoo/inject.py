"""FINE into a user's own detector, whichever of the known libraries it comes from."""

from __future__ import annotations

import importlib
from typing import TypeVar

import torch
from torch import nn

from fine_edge.errors import ForeignModelError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.method_names import AttentionName

_Model = TypeVar("_Model", bound=nn.Module)

# By the package that a model's class comes from: what knows its necks.
_INJECTORS = {
    "transformers": "fine_edge.zoo.rtdetr.family",
    "torchvision": "fine_edge.zoo.torchvision.fpn",
    "ultralytics": "fine_edge.zoo.yolo.fusion",
}

_WRAPPERS = ("torch.nn.parallel", "torch._dynamo", "torch.distributed", "accelerate", "deepspeed", "pytorch_lightning")


def inject_fine(model: _Model, attention: AttentionName = "aats", *, identity: bool = True) -> _Model:
    """Put FINE into the top-down fusions of a loaded detector, in place.

    The model stays its library's own: its trainer trains it, and the keys of its own weights stay what they were.

    Args:
        model: an RT-DETR of transformers, a detector with a feature pyramid of torchvision, or a YOLO of ultralytics
            (its ``DetectionModel``, which is ``.model`` of ``ultralytics.YOLO``).
        attention: strategy of Table 3.
        identity: start as the identity, so that a pretrained detector's outputs do not change.

    Returns:
        The same model.

    Raises:
        ForeignModelError: for a model of another library or class; it is a ConfigError and a TypeError.
        ConfigError: for a model without such fusions, or with FINE already.
    """
    if _is_wrapper(model):
        raise ForeignModelError(
            f"a {type(model).__name__} wraps a detector",
            hint="give inject_fine the detector inside, then wrap it (DataParallel, torch.compile)",
        )
    for kind in type(model).__mro__:
        injector = _INJECTORS.get(kind.__module__.partition(".")[0])
        if injector:
            module = importlib.import_module(injector)
            module.inject(model, MethodConfig("fine", attention, identity=identity))
            return model
    raise ForeignModelError(
        f"FINE's place in a {type(model).__name__} is not known",
        hint=f"known: detectors of {', '.join(_INJECTORS)}; or place fine_edge.fusion.Fine yourself",
    )


def _is_wrapper(model: object) -> bool:
    """Return whether a model is another one behind replication, compilation or scripting."""
    return isinstance(model, nn.DataParallel | torch.jit.ScriptModule) or type(model).__module__.startswith(_WRAPPERS)
