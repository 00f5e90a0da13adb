"""The running sums of receptive fields, kept in a file so that a run that was stopped goes on where it was.

The file holds two lines of JSON and then numbers. The first line is everything that the sums depend on: model, weights,
pictures by their content, options. The second says how far they go, with a hash of the numbers. Memory and file do not
grow with the number of pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.analyze.gaussian import Field, fit, moments
from fine_edge.errors import DataError
from fine_edge.files import file_size, output_errors, parse_json, write_bytes

FORMAT = 2
_HINT = "remove it, or choose another --out"
_MOST_LINE_BYTES = 2**24
# Number of fields, and sums of sigma by the fit and by moments.
_FIGURES = 3


@dataclass(frozen=True)
class Sums:
    """Sums over pictures, for T fields of one input size.

    Attributes:
        fields: (T, H, W) sums of the fields.
        figures: (T, 3) number of fields that have a size, sums of their sigma, and of sigma by moments.
        products: (T, T) sums of the products of two fields' sigmas, from which their spread and covariance follow.
        done: number of files that have been read.
        images: number of pictures in the sums.
        skipped: why a file was left out, by its name.
    """

    fields: NDArray[np.float64]
    figures: NDArray[np.float64]
    products: NDArray[np.float64]
    done: int = 0
    images: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, number: int, height: int, width: int) -> Sums:
        """Return the sums of no picture."""
        return cls(np.zeros((number, height, width)), np.zeros((number, _FIGURES)), np.zeros((number, number)))

    def with_pictures(self, found: NDArray[np.float64], near_xy: list[tuple[float, float]]) -> Sums:
        """Return the sums with more pictures; the sums themselves stay, so that an interruption finds them whole.

        Args:
            found: (T, B, H, W) the fields of B pictures.
            near_xy: where each of the T fields is about, pixels.
        """
        added = np.array([[_figures(one, near) for one in fields] for fields, near in zip(found, near_xy, strict=True)])
        sigmas = added[:, :, 1]  # (T, B)
        return replace(
            self,
            fields=self.fields + found.sum(axis=1),
            figures=self.figures + added.sum(axis=1),
            products=self.products + sigmas @ sigmas.T,
            images=self.images + found.shape[1],
        )


def _figures(field: Field, near_xy: tuple[float, float]) -> NDArray[np.float64]:
    """Return what one field adds to the figures; one that is zero everywhere has no size."""
    if not field.any():
        return np.zeros(_FIGURES)
    return np.array([1.0, fit(field, near_xy).sigma, moments(field).sigma])


def path_of(folder: Path, origin: dict[str, Any]) -> Path:
    """Return the file of the sums of this origin; others lie beside it."""
    return folder / f"erf_{hashlib.sha256(_header(origin)).hexdigest()[:12]}.sums"


def _header(origin: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **origin}, sort_keys=True).encode()


def write_sums(path: Path, origin: dict[str, Any], sums: Sums) -> None:
    """Write sums, whole or not at all."""
    numbers = b"".join(part.astype("<f8").tobytes() for part in (sums.fields, sums.figures, sums.products))
    progress = {"done": sums.done, "images": sums.images, "skipped": sums.skipped}
    progress["check"] = _check(progress, numbers)
    write_bytes(path, b"\n".join((_header(origin), json.dumps(progress).encode(), numbers)))


def read_sums(path: Path, origin: dict[str, Any], shape: tuple[int, int, int]) -> Sums:
    """Return the sums of an earlier run with T, H, W of this shape; empty ones where there is no file.

    Raises:
        DataError: when the file is damaged, or is of another origin.
    """
    if not path.exists():
        return Sums.empty(*shape)
    shapes = [shape, (shape[0], _FIGURES), (shape[0], shape[0])]
    ends = np.cumsum([math.prod(one) for one in shapes]).tolist()
    size = 8 * ends[-1]
    file_size(path, DataError, hint=_HINT, limit=size + 2 * _MOST_LINE_BYTES)
    with output_errors(path):
        header, _, rest = path.read_bytes().partition(b"\n")
    line, _, numbers = rest.partition(b"\n")
    try:
        if header != _header(origin):
            raise ValueError("it is of another run")
        progress = parse_json(line.decode())
        check = progress.pop("check")
        if len(numbers) != size or check != _check(progress, numbers):
            raise ValueError("its numbers are not those that were written")
        parts = np.split(np.frombuffer(numbers, "<f8"), ends[:-1])
        fields, figures, products = (part.reshape(one).copy() for part, one in zip(parts, shapes, strict=True))
        return Sums(fields, figures, products, progress["done"], progress["images"], progress["skipped"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"cannot be gone on with ({error})", where=path, hint=_HINT) from error


def _check(progress: dict[str, Any], numbers: bytes) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode() + numbers).hexdigest()
