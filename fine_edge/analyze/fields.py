"""The result of an analysis of receptive fields: mean fields with their sizes, their ratios, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.analyze.sums import Field, Gaussian, Sums, fit
from fine_edge.errors import DataError
from fine_edge.samples import Ratio, student_factor

# A field of whose Gaussian more than this share lies outside of the input touches the border.
MOST_CUT_OFF = 0.01
# Fewer pictures give no interval.
LEAST_PICTURES = 3
# The paper's mean ratio between adjacent stages of ResNet-50 on COCO val2017 (Eq. 13).
PAPER_RATIO = 2.29


@dataclass(frozen=True)
class MeanField:
    """A field over pictures.

    Attributes:
        mean: (H, W) the mean of the pictures' fields.
        near_xy: the middle of the cell whose response it is, pixels of the input.
        sigma_px: E[sigma], the mean over pictures of the sigma of each one's own fit.
        sigma_sd_px: standard deviation of that sigma over pictures; ``None`` of a single one.
        sigma_moments_px: the mean over pictures of sigma by moments.
        fitted: the Gaussian that fits the mean field.
    """

    mean: Field
    near_xy: tuple[float, float]
    sigma_px: float
    sigma_sd_px: float | None
    sigma_moments_px: float
    fitted: Gaussian

    @property
    def touches_border(self) -> bool:
        """Return whether the border cuts the field off, so that its sigma is a lower bound."""
        return self.fitted.cut_off > MOST_CUT_OFF

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "sigma_px": self.sigma_px,
            "sigma_sd_px": self.sigma_sd_px,
            "sigma_moments_px": self.sigma_moments_px,
            "sigma_of_mean_field_px": self.fitted.sigma,
            "centre_xy_px": [self.fitted.x, self.fitted.y],
            "cut_off_share": self.fitted.cut_off,
            "touches_border": self.touches_border,
        }


def mean_field(name: str, sums: Sums, place: int, near_xy: tuple[float, float]) -> MeanField:
    """Return the field at this place of the sums.

    Raises:
        DataError: when it is zero for every picture.
    """
    number, total, by_moments = sums.figures[place].tolist()
    if not number:
        what = f"the gradient of {name} is zero for every picture ({sums.images})"
        raise DataError(what, where="analyze erf", hint="give trained weights, or another position with --at")
    mean = total / number
    spread = (
        math.sqrt(max(0.0, sums.products[place, place] / number - mean**2) * number / (number - 1))
        if number > 1
        else None
    )
    field = sums.fields[place] / sums.images
    return MeanField(field, near_xy, mean, spread, by_moments / number, fit(field, near_xy))


def mean_ratio(sums: Sums, pairs: Sequence[tuple[int, int]]) -> Ratio:
    """Return the mean of ratios of E[sigma], high over low, with its interval over the pictures.

    The interval is Student's for the linearised mean (the delta method), so it takes into account that both sigmas are
    of the same pictures. It is infinitely wide where fewer than three pictures give all the fields a size.

    Args:
        sums: of all fields.
        pairs: places of the high and the low field in the sums.
    """
    sizes = sums.figures[:, 1] / np.maximum(sums.figures[:, 0], 1)
    slope = np.zeros(len(sizes))  # of the mean ratio in each E[sigma]
    for high, low in pairs:
        slope[high] += 1 / (sizes[low] * len(pairs))
        slope[low] -= sizes[high] / (sizes[low] ** 2 * len(pairs))
    value = float(np.mean([sizes[high] / sizes[low] for high, low in pairs]))
    half = _half_interval(sums, slope)
    return Ratio(value, value - half, value + half)


def _half_interval(sums: Sums, slope: NDArray[np.float64]) -> float:
    """Return half of Student's interval of what grows by ``slope`` (T,) with each E[sigma]."""
    number = sums.images
    if number < LEAST_PICTURES or (sums.figures[slope != 0, 0] != number).any():
        return math.inf
    sizes = sums.figures[:, 1] / number
    covariance = (sums.products / number - np.outer(sizes, sizes)) * number / (number - 1)
    return student_factor(number) * math.sqrt(max(0.0, float(slope @ covariance @ slope)) / number)


def interval(ratio: Ratio) -> list[float] | None:
    """Return low and high; ``None`` where they are not known."""
    return [ratio.low, ratio.high] if math.isfinite(ratio.high) else None


@dataclass(frozen=True)
class StageField:
    """The field of one position of a backbone's stage.

    Attributes:
        stage, stride: stride in pixels, 4 at the paper's stage 1.
        ratio: E[sigma] over that of the stage before (Eq. 13); ``None`` of the first.
    """

    stage: int
    stride: int
    field: MeanField
    ratio: Ratio | None = None


@dataclass(frozen=True)
class TokenFields:
    """The fields of a fusion's low-level and high-level token at one point of the input, sampled at a ratio ``r``.

    Attributes:
        fusion: name of the fusion.
        k, r: sampling kernel and ratio.
        own: whether the model itself samples at this ratio.
        ratio: sigma of the high-level token over sigma of the low-level one; 1 where they are aligned.
    """

    fusion: str
    k: int
    r: int
    own: bool
    low: MeanField
    high: MeanField
    ratio: Ratio

    @property
    def touches_border(self) -> bool:
        """Return whether the border cuts one of the two off."""
        return self.low.touches_border or self.high.touches_border

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "fusion": self.fusion,
            "k": self.k,
            "r": self.r,
            "own_r": self.own,
            "sigma_low_px": self.low.sigma_px,
            "sigma_high_px": self.high.sigma_px,
            "ratio": self.ratio.value,
            "ratio_ci": interval(self.ratio),
            "touches_border": self.touches_border,
            "low": self.low.to_json(),
            "high": self.high.to_json(),
        }


@dataclass(frozen=True)
class Fields:
    """All fields of one analysis.

    Attributes:
        origin: what they were made from.
        stages: shallow first.
        tokens: by fusion, deepest first, and ratio; empty without FINE.
        mean_ratio: mean of the ratios between stages; ``None`` of a single stage.
        images: number of pictures.
        skipped: why a file was left out, by its name.
    """

    origin: dict[str, Any]
    stages: tuple[StageField, ...]
    tokens: tuple[TokenFields, ...]
    mean_ratio: Ratio | None
    images: int
    skipped: dict[str, str]

    @property
    def ratios(self) -> list[Ratio]:
        """Return the ratio of each stage but the first."""
        return [one.ratio for one in self.stages if one.ratio]

    def to_json(self) -> dict[str, Any]:
        """Return all figures and what they were made from; without the fields themselves."""
        return {
            "stages": [{"stage": one.stage, "stride": one.stride, **one.field.to_json()} for one in self.stages],
            "ratios": [one.value for one in self.ratios],
            "ratios_ci": [interval(one) for one in self.ratios],
            "mean_ratio": self.mean_ratio and self.mean_ratio.value,
            "mean_ratio_ci": self.mean_ratio and interval(self.mean_ratio),
            "tokens": [one.to_json() for one in self.tokens],
            "images": self.images,
            "skipped": self.skipped,
            "made_by": self.origin,
        }
