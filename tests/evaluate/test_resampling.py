"""AP by counting: COCO's with each image once, and with images drawn again that of a data set that holds them so."""

from dataclasses import replace

import numpy as np
import pytest
from data_sets import data_set, detections, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.evaluate.average_precision import average_precision
from fine_edge.evaluate.coco_data import Found, Truth, with_runs
from fine_edge.evaluate.coco_data import objects as as_objects
from fine_edge.evaluate.resampling import differences, match, resampled_ap


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(0, 40), st.integers(0, 250))
def test_with_each_image_once_it_is_cocos(seed, images, objects, found):
    data, detected = drawn(seed, images, 3, objects, found)
    once = np.ones(images, dtype=np.int64)
    assert resampled_ap(match(data, detected), once) == pytest.approx(average_precision(data, detected).ap, abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**20))
def test_with_each_image_once_it_is_cocos_of_masks_too(seed):
    """Masks fill the upper part of their boxes, so that those of masks overlap otherwise than the boxes."""
    data, detected = drawn(seed, 5, 3, 24, 120)
    random = np.random.default_rng(seed)
    masked = []
    for some in (data.truth, detected):
        shares = random.uniform(0.5, 1.0, len(some))
        outlines = [
            [[x, y, x + width, y, x + width, y + share * height, x, y + share * height]]
            for (x, y, width, height), share in zip(some.boxes_xywh.tolist(), shares, strict=True)
        ]
        masked.append(replace(some, masks=as_objects(outlines)))
    data = replace(data, truth=masked[0], sizes=dict.fromkeys(data.images, (500, 500)))
    data, detected = with_runs(data, masked[1])
    once = np.ones(5, dtype=np.int64)
    expected = average_precision(data, detected, "segm").ap
    assert resampled_ap(match(data, detected, "segm"), once) == pytest.approx(expected, abs=1e-9)
    assert resampled_ap(match(data, detected), once) != pytest.approx(expected, abs=1e-9)


def copied(rows, times, images):
    """Rows of each image as often as it was drawn, with new image ids that keep the order of the old ones."""
    picked, ids, number = [], [], 0
    for image, count in zip(images, times, strict=True):
        for _ in range(count):
            here = np.flatnonzero(rows.image_ids == image)
            picked.append(here)
            ids += [number] * len(here)
            number += 1
    rows = rows.taken(np.concatenate(picked).astype(np.int64))
    return replace(rows, image_ids=np.array(ids, dtype=np.int64)), number


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20))
def test_images_drawn_again_are_images_copied(seed):
    data, detected = drawn(seed, 6, 3, 24, 100)
    random = np.random.default_rng(seed)
    detected = Found(detected.image_ids, detected.category_ids, detected.boxes_xywh, random.permutation(100) / 99)
    times = np.bincount(random.integers(0, 6, 6), minlength=6)
    truth, number = copied(data.truth, times, sorted(data.images))
    found, _ = copied(detected, times, sorted(data.images))
    assert isinstance(truth, Truth)
    larger = replace(data, images={n: f"{n}.png" for n in range(number)}, truth=truth)
    expected = average_precision(larger, found).ap
    assert resampled_ap(match(data, detected), times) == pytest.approx(expected, abs=1e-9)


def difference(data, a, b, **options):
    """The difference of AP with its interval, and of a figure that is never defined."""
    first, second = match(data, a), match(data, b)

    def statistic(times):
        return np.array([resampled_ap(second, times) - resampled_ap(first, times), np.nan])

    found, nothing = differences(statistic, len(data.images), **options)
    assert nothing is None
    return found


def test_the_same_detections_do_not_differ():
    data, detected = drawn(1)
    same = difference(data, detected, detected, resamples=20)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_better_detector_is_better_on_most_draws():
    images = range(1, 41)
    data = data_set(images, [1], [(n, 1, (10, 10, 40, 40)) for n in images])
    right = detections([(n, 1, (10, 10, 40, 40), 0.9) for n in images])
    worse = detections([(n, 1, (10, 10, 40, 40 if n % 4 else 4), 0.9) for n in images])
    steps = []
    found = difference(data, worse, right, resamples=200, advance=lambda: steps.append(1))
    assert len(steps) == 200
    assert 0 < found.low < found.value < found.high < 1
    back = difference(data, right, worse, resamples=200)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
