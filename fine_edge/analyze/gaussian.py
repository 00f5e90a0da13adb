"""The size of an effective receptive field: the Gaussian of the paper's Eq. 12 fitted to it, and its moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr

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
