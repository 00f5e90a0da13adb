"""The Gaussian that measures a receptive field, and running sums of fields, in a file so that a stopped run goes on.

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
from scipy.optimize import minimize
from scipy.special import ndtr

from fine_edge.errors import DataError
from fine_edge.files import file_size, output_errors, parse_json, write_bytes

# The size of an effective receptive field: the Gaussian of the paper's Eq. 12 fitted to it, and its moments.

Field = NDArray[np.float64]

# Half a pixel is the least that pixels show; a field that is wider than this many inputs is flat.
_LEAST_SIGMA_PX, _MOST_SIDES = 0.3, 4.0
# The moments of a field with a faint far halo are many times too wide: the fit starts from shares of them as well.
_STARTS = (1.0, 0.5, 0.2)


@dataclass(frozen=True)
class Gaussian:
    """An isotropic Gaussian on the pixels of an input, whose centres have whole coordinates.

    Attributes:
        x, y: centre, pixels.
        sigma: standard deviation of one axis, pixels.
        cut_off: share of it that lies outside of the input.
    """

    x: float
    y: float
    sigma: float
    cut_off: float


def moments(field: Field) -> Gaussian:
    """Return the Gaussian with the centroid and the mean variance of both axes of a field (H, W), not negative.

    Raises:
        ValueError: for a field that is zero everywhere or not finite.
    """
    total = float(field.sum())
    if not (total > 0 and math.isfinite(total)):
        raise ValueError("the field is zero everywhere" if total == 0 else "the field is not finite")
    along = [field.sum(axis=axis) / total for axis in (0, 1)]  # of x (W,), of y (H,)
    places = [np.arange(len(share)) for share in along]
    (x, y) = (float(share @ place) for share, place in zip(along, places, strict=True))
    variances = [float(share @ (place - mean) ** 2) for share, place, mean in zip(along, places, (x, y), strict=True)]
    return _on_input(x, y, math.sqrt(sum(variances) / 2), field)


def fit(field: Field, near_xy: tuple[float, float]) -> Gaussian:
    """Return the Gaussian of the paper's Eq. 12 that fits a field (H, W) in the sense of least squares.

    The best height for a centre and a width is known in closed form, and the Gaussian is a product of one row and one
    column; so each step takes one product of the field with a vector, and no height is searched.

    Args:
        field: not negative.
        near_xy: where the search for the centre begins, pixels.

    Raises:
        ValueError: for a field that is zero everywhere or not finite.
    """
    start = max(moments(field).sigma, 1.0)
    height, width = field.shape
    scaled = field / field.max()
    places = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    found = [_descent(scaled, places, near_xy, start * share) for share in _STARTS]
    x, y, log_sigma = min(found)[1:]
    return _on_input(x, y, math.exp(log_sigma), field)


def _descent(
    field: Field, places: tuple[Field, Field], near_xy: tuple[float, float], sigma: float
) -> tuple[float, float, float, float]:
    """Return the least misfit that is found from a start, with the centre and the log of sigma there."""
    height, width = field.shape
    # In units of the first sigma all three unknowns are alike, and no first step leaves the input.
    bounds = [
        (-0.5 * width / sigma, 1.5 * width / sigma),
        (-0.5 * height / sigma, 1.5 * height / sigma),
        (math.log(_LEAST_SIGMA_PX), math.log(_MOST_SIDES * max(field.shape))),
    ]
    start = (near_xy[0] / sigma, near_xy[1] / sigma, math.log(sigma))
    found = minimize(_misfit, start, (field, *places, sigma), "L-BFGS-B", jac=True, bounds=bounds)
    x, y, log_sigma = found.x.tolist()
    return float(found.fun), x * sigma, y * sigma, log_sigma


def _misfit(at: Field, field: Field, columns: Field, rows: Field, unit: float) -> tuple[float, Field]:
    """Return what least squares minimises, as minus the log of the field's projection on the Gaussian, and its slope.

    With the best height the squared error is |F|^2 - <F, G>^2 / <G, G>, so it is least where <F, G> / |G| is greatest.
    """
    sigma = math.exp(at[2])
    u, v = (columns - at[0] * unit) / sigma, (rows - at[1] * unit) / sigma
    across, down = np.exp(-u * u / 2), np.exp(-v * v / 2)
    by_row, by_column = field @ across, down @ field  # (H,), (W,)
    inner = max(float(down @ by_row), np.finfo(np.float64).tiny)
    norms = [max(float(part @ part), np.finfo(np.float64).tiny) for part in (across, down)]
    value = 0.5 * (math.log(norms[0]) + math.log(norms[1])) - math.log(inner)
    slope_x, slope_y = (
        (float((part * part) @ place) / norm - float((part * place) @ other) / inner) * unit / sigma
        for part, place, other, norm in ((across, u, by_column, norms[0]), (down, v, by_row, norms[1]))
    )
    slope_log_sigma = sum(
        float((part * part) @ place**2) / norm - float((part * place**2) @ other) / inner
        for part, place, other, norm in ((across, u, by_column, norms[0]), (down, v, by_row, norms[1]))
    )
    return value, np.array([slope_x, slope_y, slope_log_sigma])


def _on_input(x: float, y: float, sigma: float, field: Field) -> Gaussian:
    height, width = field.shape
    if sigma == 0:
        return Gaussian(x, y, sigma, 0.0)
    inside = 1.0
    for centre, side in ((x, width), (y, height)):
        inside *= float(ndtr((side - 0.5 - centre) / sigma) - ndtr((-0.5 - centre) / sigma))
    return Gaussian(x, y, sigma, 1.0 - inside)


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
