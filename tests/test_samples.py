import tracemalloc
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge import samples as module
from fine_edge.samples import Ratio

DURATIONS = st.lists(st.floats(0.01, 1e5), min_size=2, max_size=40)


def test_median_of_odd_and_even_counts():
    assert module.median([3, 1, 2]) == 2
    assert module.median([4, 1, 2, 3]) == 2.5


@pytest.mark.parametrize(("percent", "tail"), [(90, 0.1), (99, 0.01)])
def test_fewest_samples_are_where_two_lie_in_the_tail_with_99_percent_confidence(percent, tail):
    def at_most_one(n):
        return sum(comb(n, i) * tail**i * (1 - tail) ** (n - i) for i in (0, 1))

    fewest = module.FEWEST_SAMPLES[percent]
    assert at_most_one(fewest) <= 0.01 < at_most_one(fewest - 1)


def test_percentiles_are_withheld_until_there_are_enough_samples():
    assert module.percentile(range(63), 90) is None
    assert module.percentile(range(661), 99) is None
    assert module.percentile(range(1, 101), 90) == 90
    assert module.percentile(range(1, 1001), 99) == 990


@given(st.lists(st.floats(0.01, 1e5), min_size=64, max_size=80))
def test_a_percentile_is_a_sample_with_enough_samples_at_or_below_it(samples):
    value = module.percentile(samples, 90)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= 0.9 * len(samples)


def test_spread_of_normal_samples_equals_their_coefficient_of_variation():
    samples = np.random.default_rng(0).normal(100, 2, 20_000)
    assert module.robust_spread(samples) == pytest.approx(0.02, rel=0.05)
    assert module.coefficient_of_variation(samples) == pytest.approx(0.02, rel=0.05)


def test_one_outlier_does_not_make_samples_unstable_but_scatter_does():
    assert not module.is_unstable([100, 101, 99, 100, 102, 1000])
    assert module.is_unstable([80, 120, 90, 110, 100, 130])


def test_warnings_name_the_row_and_the_cause():
    narrow, wide = Ratio(1.01, 1.005, 1.012), Ratio(1.01, 0.97, 1.03)
    assert module.stability_warning("m", [100, 100, 101], narrow) is None
    assert "m is unstable" in module.stability_warning("m", [80, 120, 90, 110], narrow)
    assert "more --rounds" in module.stability_warning("m", [100, 100, 101], wide)


@given(DURATIONS, st.floats(0.1, 10))
def test_a_constant_factor_is_found_exactly_whatever_the_drift(baseline, factor):
    ratio = module.paired_ratio([factor * sample for sample in baseline], baseline)
    assert [ratio.value, ratio.low, ratio.high] == pytest.approx([factor] * 3)


@given(st.lists(st.tuples(st.floats(0.01, 1e5), st.floats(0.01, 1e5)), min_size=2, max_size=20))
def test_the_interval_holds_the_value_and_stays_within_the_rounds(pairs):
    top, bottom = zip(*pairs, strict=True)
    ratio = module.paired_ratio(top, bottom)
    rounds = [a / b for a, b in pairs]
    assert min(rounds) <= ratio.low <= ratio.value <= ratio.high <= max(rounds)
    assert ratio == module.paired_ratio(top, bottom)


def test_the_interval_covers_the_true_median_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        baseline = rng.normal(400, 8, 30)
        ratio = module.paired_ratio(1.01 * baseline * rng.normal(1, 0.01, 30), baseline)
        hits += ratio.low <= 1.01 <= ratio.high
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.parametrize("number", [999, 1000])
def test_medians_drawn_by_rank_are_distributed_as_those_of_resamples(number):
    values = np.random.default_rng(2).lognormal(size=number)
    one_by_one = module._resampled_medians(values, 0)
    by_rank = module._medians_by_rank(np.sort(values), np.random.default_rng(1))
    parts = [2.5, 25, 50, 75, 97.5]
    assert np.percentile(by_rank, parts) == pytest.approx(np.percentile(one_by_one, parts), abs=0.01)


def test_a_long_record_takes_no_more_memory_than_a_short_one():
    samples = np.random.default_rng(3).normal(100, 2, 100_000)
    tracemalloc.start()
    ratio = module.unpaired_ratio(samples, samples[::-1])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64 * 2**20
    assert 0.999 < ratio.low < 1 < ratio.high < 1.001


def test_unpaired_ratio_is_that_of_the_medians_with_an_interval_around_it():
    ratio = module.unpaired_ratio([10, 11, 12], [5, 5, 5, 5])
    assert ratio.value == pytest.approx(11 / 5)
    assert 2 <= ratio.low <= ratio.value <= ratio.high <= 2.4


def test_a_ratio_of_means_has_the_interval_of_a_bootstrap_over_rows(monkeypatch):
    rng = np.random.default_rng(5)
    rows = np.stack([rng.normal(3, 0.6, 80), rng.normal(2, 0.4, 80)], axis=1)
    found = module.ratio_of_means(rows, lambda means: means[:, 0] / means[:, 1])
    drawn = [rows[rng.integers(0, 80, 80)].mean(axis=0) for _ in range(4000)]
    low, high = np.percentile([top / bottom for top, bottom in drawn], [2.5, 97.5])
    assert found.value == pytest.approx(rows[:, 0].mean() / rows[:, 1].mean())
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=0.01)
    # Many rows are counted in parts: as many resamples, another order of the same random numbers.
    monkeypatch.setattr(module, "_MOST_COUNTS", 80 * 300)
    assert module.ratio_of_means(rows, lambda means: means[:, 0] / means[:, 1]) == found
