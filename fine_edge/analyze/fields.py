"""The result of an analysis of receptive fields: mean fields with their sizes, their ratios, and all of it as JSON."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from fine_edge.analyze.gaussian import Field, Gaussian, fit
from fine_edge.analyze.sums import Sums
from fine_edge.errors import DataError

MOST_CUT_OFF = 0.01
"""A field of whose Gaussian more than this share lies outside of the input touches the border."""
PAPER_RATIO = 2.29
"""The paper's mean ratio between adjacent stages of ResNet-50 on COCO val2017 (Eq. 13)."""


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
    number, total, squares, by_moments = sums.figures[place].tolist()
    if not number:
        what = f"the gradient of {name} is zero for every picture ({sums.images})"
        raise DataError(what, where="analyze erf", hint="give trained weights, or another position with --at")
    mean = total / number
    spread = math.sqrt(max(0.0, squares / number - mean**2) * number / (number - 1)) if number > 1 else None
    field = sums.fields[place] / sums.images
    return MeanField(field, near_xy, mean, spread, by_moments / number, fit(field, near_xy))


@dataclass(frozen=True)
class StageField:
    """The field of one position of a backbone's stage; ``stride`` in pixels, 4 at the paper's stage 1."""

    stage: int
    stride: int
    field: MeanField


@dataclass(frozen=True)
class TokenFields:
    """The fields of a fusion's low-level and high-level token at one point of the input, sampled at a ratio ``r``.

    Attributes:
        fusion: name of the fusion.
        k, r: sampling kernel and ratio.
        own: whether the model itself samples at this ratio.
    """

    fusion: str
    k: int
    r: int
    own: bool
    low: MeanField
    high: MeanField

    @property
    def ratio(self) -> float:
        """Return sigma of the high-level token over sigma of the low-level one; 1 where they are aligned."""
        return self.high.sigma_px / self.low.sigma_px

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
            "ratio": self.ratio,
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
        images: number of pictures.
        skipped: why a file was left out, by its name.
    """

    origin: dict[str, Any]
    stages: tuple[StageField, ...]
    tokens: tuple[TokenFields, ...]
    images: int
    skipped: dict[str, str]

    @property
    def ratios(self) -> list[float]:
        """Return E[sigma] of each stage over that of the one before it (Eq. 13)."""
        sizes = [one.field.sigma_px for one in self.stages]
        return [high / low for low, high in itertools.pairwise(sizes)]

    @property
    def mean_ratio(self) -> float | None:
        """Return the mean of the ratios; ``None`` of a single stage."""
        return sum(self.ratios) / len(self.ratios) if self.ratios else None

    def to_json(self) -> dict[str, Any]:
        """Return all figures and what they were made from; without the fields themselves."""
        return {
            "stages": [{"stage": one.stage, "stride": one.stride, **one.field.to_json()} for one in self.stages],
            "ratios": self.ratios,
            "mean_ratio": self.mean_ratio,
            "tokens": [one.to_json() for one in self.tokens],
            "images": self.images,
            "skipped": self.skipped,
            "made_by": self.origin,
        }
