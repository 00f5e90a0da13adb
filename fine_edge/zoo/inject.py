"""Injection of FINE into a user's own detector of any known library."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from fine_edge.errors import ForeignModelError
from fine_edge.fine_options import AttentionName, FineOptions
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import LIBRARIES
from fine_edge.zoo.family import family_of

_Model = TypeVar("_Model", bound=nn.Module)

_WRAPPERS = ("torch.nn.parallel", "torch._dynamo", "torch.distributed", "accelerate", "deepspeed", "pytorch_lightning")


def inject_fine(model: _Model, attention: AttentionName = "aats", *, identity: bool = True) -> _Model:
    """Put FINE into the top-down fusions of a loaded detector, in place.

    The model stays one of its library's: its trainer trains it, and the keys of its own weights stay as they were.

    Args:
        model: an RT-DETR of transformers, a detector with a feature pyramid of torchvision, or a YOLO of ultralytics
            (its ``DetectionModel``, which is ``.model`` of ``ultralytics.YOLO``).
        attention: attention strategy of Table 3.
        identity: whether FINE starts as the identity, so that a pretrained detector's outputs do not change.

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
    # Reversed, so that of two families of one library the first remains.
    families = {library.package: name for name, library in reversed(LIBRARIES.items())}
    # Bases too, so that a user's own subclass of a library's detector is found.
    for kind in type(model).__mro__:
        family = families.get(kind.__module__.partition(".")[0])
        if family:
            family_of(family).inject(model, MethodConfig("fine", FineOptions(attention=attention), identity=identity))
            return model
    packages = dict.fromkeys(library.package for library in LIBRARIES.values())
    raise ForeignModelError(
        f"FINE's place in a {type(model).__name__} is not known",
        hint=f"known: detectors of {', '.join(packages)}; or place fine_edge.fusion.Fine yourself",
    )


def _is_wrapper(model: object) -> bool:
    """Return whether a model wraps another one for replication, compilation or scripting."""
    return isinstance(model, nn.DataParallel | torch.jit.ScriptModule) or type(model).__module__.startswith(_WRAPPERS)
