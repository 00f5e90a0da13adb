"""The Gaussian that is fitted to a field: known fields, borders, and fields that have no size."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from fine_edge.analyze.sums import fit, moments


def gaussian(x, y, sigma, shape=(96, 128)):
    v, u = np.indices(shape)
    return np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(("x", "y", "sigma"), [(64, 48, 3.0), (30.25, 70.5, 9.0), (60, 50, 0.8), (2.0, 3.0, 12.0)])
def test_a_gaussian_is_found_as_it_is_also_where_the_border_cuts_it_off(x, y, sigma):
    found = fit(7.5 * gaussian(x, y, sigma), (x + 1, y - 1))
    np.testing.assert_allclose([found.x, found.y, found.sigma], [x, y, sigma], rtol=1e-3)


def test_the_share_that_the_border_cuts_off_is_that_of_the_whole_gaussian():
    found = fit(gaussian(-0.5, 48, 6.0), (0, 48))
    assert found.cut_off == pytest.approx(0.5, abs=1e-3)
    assert fit(gaussian(64, 48, 6.0), (64, 48)).cut_off < 1e-6
    # What the moments see ends at the border.
    assert moments(gaussian(-0.5, 48, 6.0)).sigma < 5.2


def test_the_fit_is_that_of_least_squares_over_all_pixels_on_a_field_that_is_no_gaussian():
    rng = np.random.default_rng(0)
    field = gaussian(20, 24, 5, (48, 40)) * rng.random((48, 40)) + 0.02 * rng.random((48, 40))
    v, u = np.indices(field.shape)

    def error(p):
        return (p[0] * np.exp(-((u - p[1]) ** 2 + (v - p[2]) ** 2) / (2 * p[3] ** 2)) - field).ravel()

    expected = least_squares(error, (1, 20, 24, 5)).x
    found = fit(field, (20, 24))
    np.testing.assert_allclose([found.x, found.y, found.sigma], expected[1:], rtol=1e-3)
    assert moments(field).sigma > 1.4 * found.sigma  # the faint halo


def test_spikes_far_from_where_the_search_begins_do_not_end_it():
    """Fields of single pictures are full of spikes; steps that leave the input are taken back."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        field = np.zeros((40, 60))
        field[tuple(rng.integers(0, (40, 60), (5, 2)).T)] = rng.random(5) ** 4
        found = fit(field, tuple(rng.integers(0, (60, 40))))
        assert 0 < found.sigma <= 4 * 60
        assert np.isfinite([found.x, found.y, found.cut_off]).all()


@pytest.mark.parametrize(("field", "words"), [(np.zeros((4, 4)), "zero"), (np.full((4, 4), np.nan), "not finite")])
def test_a_field_without_a_size_is_refused(field, words):
    with pytest.raises(ValueError, match=words):
        fit(field, (1, 1))
