"""Masks and segments against definitions that are written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.detections import Detections
from fine_edge.preprocess import Placement, Preprocessing, preprocess
from fine_edge.segments import MergeConfig, Segment, merge, paste_masks, pasted_masks, to_picture

THINGS = 9
FULL = np.ones((28, 28), np.float32)


def found(*boxes, labels=None, scores=None):
    count = len(boxes)
    return Detections(
        np.array(labels or [1] * count, np.int64),
        np.array(boxes, np.float32).reshape(count, 4),
        np.array(scores or [0.9] * count, np.float32),
    )


def full_masks(count):
    return np.ones((count, 28, 28), np.float32)


def bilinear(mask, box, height, width):
    """One mask by the definition: pad by one cell, widen the box as much, interpolate between centres of cells."""
    padded = np.pad(mask, 1)
    cells = len(padded)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * cells / (cells - 2)
    x0, y0, x1, y1 = np.trunc(np.concatenate([centre - half, centre + half])).astype(int)
    canvas = np.zeros((height, width))
    for y in range(max(y0, 0), min(y1 + 1, height)):
        for x in range(max(x0, 0), min(x1 + 1, width)):
            at = [
                min(max((i - first + 0.5) * cells / max(last - first + 1, 1) - 0.5, 0), cells - 1)
                for i, first, last in ((y, y0, y1), (x, x0, x1))
            ]
            low = [int(a) for a in at]
            high = [min(a + 1, cells - 1) for a in low]
            v, u = at[0] - low[0], at[1] - low[1]
            top = padded[low[0], low[1]] * (1 - u) + padded[low[0], high[1]] * u
            bottom = padded[high[0], low[1]] * (1 - u) + padded[high[0], high[1]] * u
            canvas[y, x] = top * (1 - v) + bottom * v
    return canvas


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(-20, 50),
    st.floats(-20, 40),
    st.floats(0, 60),
    st.floats(0, 60),
)
def test_masks_are_pasted_by_bilinear_interpolation_between_the_centres_of_cells(seed, x, y, w, h):
    mask = np.random.default_rng(seed).random((28, 28), dtype=np.float32)
    box = np.array([x, y, x + w, y + h], np.float32)
    pasted = paste_masks(mask[None], box[None], 30, 40)[0]
    expected = bilinear(mask, box.astype(np.float64), 30, 40)
    differ = pasted != (expected > 0.5)
    # Truncation of a corner that lies on a pixel may fall to either side in single precision.
    on_a_pixel = np.abs(np.round(box_corners(box)) - box_corners(box)).min() < 1e-4
    assert on_a_pixel or not (differ & (np.abs(expected - 0.5) > 1e-5)).any()


def box_corners(box):
    box = box.astype(np.float64)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * 30 / 28
    return np.concatenate([centre - half, centre + half])


def test_a_full_mask_fills_its_box_and_keeps_to_the_picture():
    boxes = np.array([[10, 5, 20, 15], [-50, -50, 200, 200], [100, 100, 120, 120]], np.float32)
    masks = paste_masks(full_masks(3), boxes, 40, 60)
    assert masks.shape == (3, 40, 60)
    assert masks.dtype == np.bool_
    rows, columns = np.nonzero(masks[0])
    # Boxes are inclusive and reach up to a pixel further, as in torchvision.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 9, 20)
    assert masks[1].all()
    assert not masks[2].any()


def test_pasted_masks_are_no_larger_than_what_is_seen_of_their_boxes():
    (pasted,) = pasted_masks(full_masks(1), np.array([[30, 20, 1e6, 1e6]], np.float32), 40, 60)
    assert pasted.mask.shape == (40, 60)  # the padding of so large a box reaches beyond the picture
    (small,) = pasted_masks(full_masks(1), np.array([[30, 20, 40, 30]], np.float32), 40, 60)
    assert small.mask.size < 200
    assert small.window == (
        slice(small.top, small.top + small.mask.shape[0]),
        slice(small.left, small.left + small.mask.shape[1]),
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_boxes_that_are_no_boxes_paste_nothing(value):
    boxes = np.array([[value, 0, 10, 10], [0, 0, 10, value]], np.float32)
    assert not paste_masks(full_masks(2), boxes, 20, 20).any()


def test_no_masks_paste_to_none():
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), 20, 30).shape == (0, 20, 30)


def test_better_instances_lie_above_worse_ones_and_stuff_fills_what_is_left():
    stuff = np.full((100, 100), 5, np.int64)
    stuff[:, 50:] = 6
    detections = found([0, 0, 60, 60], [40, 40, 99, 99], labels=[1, 2], scores=[0.9, 0.8])
    panoptic = merge(detections, full_masks(2), stuff, THINGS, MergeConfig(stuff_area_px=1000))
    first, second, left, right = panoptic.segments
    assert (first.label, second.label, left.label, right.label) == (1, 2, 5, 6)
    assert (first.score, second.score) == (pytest.approx(0.9), pytest.approx(0.8))
    assert left.score is None
    assert panoptic.numbers[50, 50] == first.number
    assert panoptic.numbers[80, 80] == second.number
    assert panoptic.numbers[80, 10] == left.number
    assert panoptic.numbers[10, 80] == right.number
    for segment in panoptic.segments:
        assert (panoptic.numbers == segment.number).sum() == segment.area_px


def test_an_instance_that_better_ones_hide_is_dropped():
    stuff = np.full((100, 100), THINGS, np.int64)
    hidden = found([0, 0, 80, 80], [5, 5, 70, 70], [70, 70, 99, 99], scores=[0.9, 0.8, 0.7])
    panoptic = merge(hidden, full_masks(3), stuff, THINGS)
    assert [segment.score for segment in panoptic.segments] == [pytest.approx(0.9), pytest.approx(0.7)]
    allowed = merge(hidden, full_masks(3), stuff, THINGS, MergeConfig(overlap=1.0))
    assert len(allowed.segments) == 2  # nothing of it is seen, whatever may overlap


def test_low_scores_small_stuff_and_things_without_an_instance_give_no_segment():
    stuff = np.full((100, 100), THINGS, np.int64)
    stuff[:10, :10] = 5
    unsure = found([20, 20, 90, 90], scores=[0.4])
    panoptic = merge(unsure, full_masks(1), stuff, THINGS)
    assert panoptic.segments == ()
    assert not panoptic.numbers.any()
    kept = merge(unsure, full_masks(1), stuff, THINGS, MergeConfig(score=0.3, stuff_area_px=100))
    assert [segment.label for segment in kept.segments] == [1, 5]
    assert kept.segments[1] == Segment(number=2, label=5, area_px=100)


def test_an_empty_mask_is_no_segment():
    stuff = np.full((50, 50), THINGS, np.int64)
    assert merge(found([5, 5, 40, 40]), np.zeros((1, 28, 28), np.float32), stuff, THINGS).segments == ()


@pytest.mark.parametrize("align", ["corner", "center"])
def test_a_map_over_the_input_comes_back_over_the_picture(align):
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[10:20, 40:50] = 255
    tensor, placement = preprocess(pixels, 64, 64, Preprocessing("letterbox", pad_value=0, align=align))
    bright = (tensor[0, 0] > 0.5).astype(np.int64)
    back = to_picture(bright, placement)
    assert back.shape == (30, 60)
    assert back.dtype == np.int64
    assert (back != (pixels[..., 0] > 0)).mean() < 0.01


def test_a_map_of_the_size_of_the_picture_stays_as_it_is():
    classes = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(to_picture(classes, Placement(1.0, 1.0, 4, 3)), classes)
