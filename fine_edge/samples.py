"""Statistics of samples: medians, percentiles, spread and ratios with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The smallest number of samples of which, with 99 % confidence, at least two are above the true percentile:
# smallest n with P(Binomial(n, 1 - p) <= 1) <= 1 %. MLPerf's SingleStream requires the same numbers.
FEWEST_SAMPLES = {90: 64, 99: 662}
# Half of pyperf's limit of 10 % for unstable benchmarks, because the robust spread ignores single outliers.
UNSTABLE_SPREAD = 0.05
# FINE costs about 1 %, and a wider interval cannot show such a difference.
WIDE_INTERVAL = 0.01
_RESAMPLES = 10_000
# For more samples, drawing all resamples would take gigabytes and minutes.
_MOST_DRAWN = 1000
_ROW_RESAMPLES = 1000
# How often each row is drawn is counted for so many rows at a time, which takes 40 MB.
_MOST_COUNTS = 5_000_000


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def is_wide(self) -> bool:
        """Whether the interval reaches further than :data:`WIDE_INTERVAL` to either side."""
        return max(self.high - self.value, self.value - self.low) > WIDE_INTERVAL


def student_factor(count: int) -> float:
    """Return the standard errors to either side of a mean of ``count`` samples in Student's 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1))


def median(samples: Sequence[float]) -> float:
    """Return the middle sample, or the mean of the two in the middle."""
    return float(np.median(samples))


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """Return the sample at the 90th or 99th percentile; ``None`` when there are too few samples."""
    if len(samples) < FEWEST_SAMPLES[percent]:
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf"))


def coefficient_of_variation(samples: Sequence[float]) -> float:
    """Return the standard deviation over the mean, trtexec's measure of stability."""
    if len(samples) < 2:
        return 0.0
    return float(np.std(samples, ddof=1) / np.mean(samples))


def robust_spread(samples: Sequence[float]) -> float:
    """Return the median absolute deviation over the median, equal to the coefficient of variation if normal."""
    middle = np.median(samples)
    return float(1.4826 * np.median(np.abs(np.asarray(samples) - middle)) / middle)


def is_unstable(samples: Sequence[float]) -> bool:
    """Return whether the samples scatter too much for a reliable median."""
    return robust_spread(samples) > UNSTABLE_SPREAD


def stability_warning(name: str, samples: Sequence[float], ratio: Ratio) -> str | None:
    """Return a warning on samples that scatter or on a ratio with a wide interval; ``None`` without a problem."""
    if is_unstable(samples):
        return (
            f"{name} is unstable: samples scatter by {robust_spread(samples):.1%} of their median"
            f" (coefficient of variation {coefficient_of_variation(samples):.1%}); close other programs"
        )
    if ratio.is_wide:
        return f"{name}: the ratio is known to {ratio.low:.3f} .. {ratio.high:.3f} only; take more --rounds"
    return None


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Return the median of ``samples[i] / baseline[i]``; a slowdown of a whole round cancels in its pair.

    The interval is the percentile bootstrap over rounds. It is seeded, so that equal samples give equal figures.
    """
    ratios = np.asarray(samples, dtype=np.float64) / np.asarray(baseline, dtype=np.float64)
    return _with_interval(float(np.median(ratios)), _resampled_medians(ratios, seed=0))


def unpaired_ratio(samples: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return the ratio of the medians of samples from different times; the interval bootstraps both."""
    top = np.asarray(samples, dtype=np.float64)
    bottom = np.asarray(reference, dtype=np.float64)
    medians = _resampled_medians(top, seed=0) / _resampled_medians(bottom, seed=1)
    return _with_interval(float(np.median(top) / np.median(bottom)), medians)


def ratio_of_means(rows: NDArray[np.float64], ratio: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Ratio:
    """Return a ratio that follows from the means of columns, with its interval over resampled rows.

    The interval is the percentile bootstrap, seeded, so that equal rows give equal figures. All columns are resampled
    together.

    Args:
        rows: (N, columns), one row for each of N pictures.
        ratio: turns means (resamples, columns) into ratios (resamples,).
    """
    number = len(rows)
    rng = np.random.default_rng(0)
    at_a_time = max(1, _MOST_COUNTS // number)
    means = [
        rng.multinomial(number, np.full(number, 1 / number), size=min(at_a_time, _ROW_RESAMPLES - done)) @ rows / number
        for done in range(0, _ROW_RESAMPLES, at_a_time)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold only rows of zeros
        value = float(ratio(rows.mean(axis=0, keepdims=True))[0])
        return _with_interval(value, ratio(np.concatenate(means)))


def _resampled_medians(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    if len(values) > _MOST_DRAWN:
        return _medians_by_rank(np.sort(values), rng)
    picks = rng.integers(0, len(values), size=(_RESAMPLES, len(values)))  # (resamples, samples)
    return np.asarray(np.median(values[picks], axis=1), dtype=np.float64)


def _medians_by_rank(ordered: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw medians of resamples from their distribution, without drawing the resamples.

    A drawn sample is at a uniform share of the ordered samples. So the two in the middle of ``n`` draws are at the
    shares of the two in the middle of ``n`` uniform numbers, which are beta-distributed.
    """
    number = len(ordered)
    lower = (number + 1) // 2
    below = rng.beta(lower, number - lower + 1, _RESAMPLES)
    above = below if number % 2 else below + (1 - below) * rng.beta(1, number - lower, _RESAMPLES)
    shares = np.stack([below, above])
    return np.asarray(ordered[(number * shares).astype(np.int64).clip(max=number - 1)].mean(axis=0), dtype=np.float64)


def _with_interval(value: float, resampled: NDArray[np.float64]) -> Ratio:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Ratio(value, min(float(low), value), max(float(high), value))
