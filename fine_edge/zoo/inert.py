"""Inert records, which stand for objects of a pickle that are neither tensors nor containers.

``torch.load(weights_only=True)`` refuses every name outside its list. An allowed name is added to that list with a
class of our own, so that nothing that the file names is imported or called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


class InertRecord:
    """An object of a file with the attributes that the file states; torch's unpickler creates and fills it."""

    def __init__(self, *_arguments: object) -> None:
        # The unpickler passes whatever the file states for the class that it names; none of it is used.
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers by key, as ``state_dict`` would name them."""
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _entries(self.attributes.get(kind)):
                if isinstance(tensor, Tensor):
                    yield prefix + name, tensor
        for path, child in self.children():
            yield from child.tensors(f"{prefix}{path}.")

    def children(self) -> Iterator[tuple[str, InertRecord]]:
        """Yield the modules inside by name."""
        for name, child in _entries(self.attributes.get("_modules")):
            if isinstance(child, InertRecord):
                yield name, child

    def modules(self, prefix: str = "") -> Iterator[tuple[str, InertRecord]]:
        """Yield this module and all inside by path, as ``named_modules`` would."""
        yield prefix, self
        for name, child in self.children():
            yield from child.modules(f"{prefix}.{name}" if prefix else name)


def _entries(value: object) -> list[tuple[str, Any]]:
    return [(str(key), entry) for key, entry in value.items()] if isinstance(value, dict) else []


# The names of plain data that training scripts save beside their weights: paths, and single numbers of numpy.
# Python 3.13 has another module for paths, and numpy 2 for its core.
PLAIN_DATA = (
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
)


def records(names: Iterable[str]) -> list[Any]:
    """Return an inert class for each name; torch distinguishes them by the class as well as by the name."""
    return [(type(name.rpartition(".")[2], (InertRecord,), {}), name) for name in names]
