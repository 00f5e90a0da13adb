"""Panoptic quality: by hand, and against the definition written down once more, segment by segment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.evaluate.panoptic import figures, rows
from fine_edge.evaluate.segment_data import TrueSegment

NAMES = {1: "cat", 2: "sky", 3: "dog"}


def quality(truth, segments, found, categories):
    table = np.array(rows(truth, segments, found, categories), dtype=np.float64).reshape(-1, 5)
    return figures(table, NAMES)


def test_by_hand():
    """A cat found with IoU 3/4, a sky exactly, and a dog that is none."""
    truth = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]])
    found = np.array([[5, 5, 5, 7], [6, 6, 6, 6], [6, 6, 6, 6]])
    segments = (TrueSegment(1, 1), TrueSegment(2, 2))
    result = quality(truth, segments, found, {5: 1, 6: 2, 7: 3})
    assert result.pq_by_category == pytest.approx({"cat": 3 / 4, "sky": 1, "dog": 0})
    assert (result.pq, result.sq, result.rq) == pytest.approx(((3 / 4 + 1) / 3, (3 / 4 + 1) / 3, 2 / 3))


def test_half_is_not_found():
    truth, found = np.array([[1, 1, 1, 1]]), np.array([[5, 5, 0, 0]])
    result = quality(truth, (TrueSegment(1, 1),), found, {5: 1})
    assert (result.pq, result.rq) == (0, 0)


def test_pixels_that_nobody_labelled_count_for_nobody():
    truth, found = np.array([[1, 1, 0, 0, 0]]), np.array([[5, 5, 5, 6, 6]])
    assert quality(truth, (TrueSegment(1, 1),), found, {5: 1, 6: 3}).pq_by_category == pytest.approx(
        {"cat": 1, "sky": -1, "dog": -1}
    )


def test_what_lies_in_a_crowd_of_its_category_is_no_error():
    truth, found = np.array([[9, 9, 9, 9]]), np.array([[5, 5, 6, 6]])
    crowd = (TrueSegment(9, 1, crowd=True),)
    assert rows(truth, crowd, found, {5: 1, 6: 3}) == [(3, 0.0, 0, 1, 0)]


def test_nothing_at_all():
    result = quality(np.zeros((2, 2), np.int64), (), np.zeros((2, 2), np.int64), {})
    assert (result.pq, result.sq, result.rq) == (-1, -1, -1)


def by_definition(truth, segments, found, categories):
    """PQ by category."""
    tally = {category: [0.0, 0, 0, 0] for category in NAMES}
    labelled = truth != 0
    used = set()
    for segment in segments:
        if segment.crowd:
            continue
        mine = truth == segment.number
        hits = [
            (number, (mine & (found == number)).sum() / (mine | ((found == number) & labelled)).sum())
            for number, category in categories.items()
            if category == segment.category and (mine | (found == number)).any()
        ]
        hits = [(number, iou) for number, iou in hits if iou > 0.5]
        assert len(hits) <= 1
        if hits:
            used.add(hits[0][0])
            tally[segment.category][0] += hits[0][1]
            tally[segment.category][1] += 1
        else:
            tally[segment.category][3] += 1
    for number, category in categories.items():
        mine = found == number
        crowd = np.isin(truth, [s.number for s in segments if s.crowd and s.category == category])
        if mine.any() and number not in used and (mine & (crowd | ~labelled)).sum() <= mine.sum() / 2:
            tally[category][2] += 1
    return {NAMES[c]: iou / (tp + (fp + fn) / 2) if tp + fp + fn else -1 for c, (iou, tp, fp, fn) in tally.items()}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**20))
def test_it_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, 5, (4, 4)), 3, axis=0), 3, axis=1)
    found = np.where(rng.random(truth.shape) < 0.8, truth + 10, rng.integers(10, 15, truth.shape))
    found[found == 10] = 0
    segments = tuple(TrueSegment(n, int(rng.integers(1, 4)), bool(rng.random() < 0.2)) for n in range(1, 5))
    true = {s.number: s.category for s in segments}
    categories = {n: true[n - 10] if rng.random() < 0.7 else int(rng.integers(1, 4)) for n in range(11, 15)}
    assert quality(truth, segments, found, categories).pq_by_category == pytest.approx(
        by_definition(truth, segments, found, categories)
    )
