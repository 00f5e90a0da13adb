"""Mean IoU: by hand, and against counting pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.evaluate.segment_data import IGNORED
from fine_edge.evaluate.semantic import figures, rows

NAMES = {7: "road", 8: "sidewalk", 11: "building"}


def table(*images):
    return np.array([row for image in images for row in image], dtype=np.float64).reshape(-1, 3)


def test_iou_by_hand():
    truth = np.array([[7, 7, 7, 8], [7, 7, 8, IGNORED]])
    found = np.array([[7, 7, 8, 8], [7, 7, 8, 8]])
    result = figures(table(rows(truth, found)), NAMES)
    assert result.iou_by_category == pytest.approx({"road": 4 / 5, "sidewalk": 2 / 3, "building": -1})
    assert result.miou == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result.pixel_accuracy == pytest.approx(6 / 7)


def test_what_is_of_no_category_is_wrong_but_no_false_positive():
    result = figures(table(rows(np.array([[7, 7]]), np.array([[7, IGNORED]]))), NAMES)
    assert result.iou_by_category["road"] == pytest.approx(1 / 2)
    assert result.pixel_accuracy == pytest.approx(1 / 2)


def test_nothing_labelled():
    result = figures(table(rows(np.full((2, 2), IGNORED), np.full((2, 2), 7))), NAMES)
    assert (result.miou, result.pixel_accuracy) == (-1, -1)


@given(st.integers(0, 2**20), st.integers(1, 4))
def test_images_add_up_to_pixels(seed, images):
    rng = np.random.default_rng(seed)
    truths, founds = (rng.choice([7, 8, 11, IGNORED], (images, 6, 5)) for _ in range(2))
    result = figures(table(*(rows(t, f) for t, f in zip(truths, founds, strict=True))), NAMES)
    counted = truths != IGNORED
    for number, name in NAMES.items():
        both = ((truths == number) & (founds == number)).sum()
        either = (counted & ((truths == number) | (founds == number))).sum()
        assert result.iou_by_category[name] == pytest.approx(both / either if either else -1)
