"""Families by name, each in a file or folder of that name beside this one."""

from __future__ import annotations

import importlib

from fine_edge.errors import MissingExtraError
from fine_edge.zoo.family import Family

# Extras of what is not in ``export``.
_EXTRAS = {"ultralytics": "yolo"}


def family_of(name: str) -> Family:
    """What :attr:`Detector.family` names; its library is imported now and not before.

    Raises:
        MissingExtraError: when the library is not installed.
    """
    try:
        module = importlib.import_module(f"fine_edge.zoo.{name}")
    except ModuleNotFoundError as error:
        package = error.name or name
        if package.startswith("fine_edge"):
            raise
        raise MissingExtraError(package, _EXTRAS.get(package, "export")) from error
    family: Family = module.FAMILY
    return family
