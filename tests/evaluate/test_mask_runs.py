"""Masks of files, checked before the library draws them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.evaluate.masks import _lengths, area, bounding_box, runs

SIZE = (20, 30)


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]],
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, float("inf")]],
        [[0.0, 0, 1e9, 0, 1e9, 1e9]],
        [[0.0, 0, 1e7, 0, 1e7, 1e7] * 3],
        [[0, 0, 1e7, 1e7]],
        [["a", 0, 1, 0, 1, 1]],
        [[[0], 0, 1, 0, 1, 1]],
        [1, 2, 3, 4, 5, 6],
        [[]],
        [],
        [{"size": [2, 3], "counts": [6]}],
        {"size": [2, 3], "counts": [1, 2, 4]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3], "counts": []},
        {"size": [2], "counts": [2]},
        {"size": [-2, -3], "counts": [6]},
        {"size": [2**31, 2**31], "counts": [2**62]},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "5"},
        {"size": [2, 3], "counts": "6P"},
        {"size": [2, 3], "counts": "oooooooooooo0"},
        {"size": [2, 3], "counts": "6é"},
        {"size": [2, 3], "counts": 6},
        {"size": [2, 3]},
        {"counts": [6]},
        "polygon",
        7,
        None,
    ],
)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises((ValueError, LookupError, TypeError, OverflowError)):
        runs(mask, SIZE)


def test_polygons_need_the_size_of_their_picture():
    assert area(runs([[0, 0, 10, 0, 10, 10, 0, 10]], SIZE)) == 100
    assert runs({"size": [2, 3], "counts": [0, 6]}, None)["size"] == [2, 3]
    with pytest.raises(ValueError, match="are not known"):
        runs([[0, 0, 10, 0, 10, 10, 0, 10]], None)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**20))
def test_text_says_the_same_runs_as_the_list(height, width, seed):
    from faster_coco_eval.core import mask as library

    rng = np.random.default_rng(seed)
    pixels = np.asfortranarray(np.repeat(rng.random((height, width)) < 0.5, 12, axis=1).astype(np.uint8))
    counts = library.encode(pixels)["counts"]
    text = counts.decode() if isinstance(counts, bytes) else counts
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    expected = np.diff([0, *changes, flat.size]).tolist()
    assert [n for n in _lengths(text).tolist() if n] == [n for n in expected if n]
    mask = runs({"size": list(pixels.shape), "counts": text}, None)
    assert area(mask) == pixels.sum()
    assert area(runs({"size": list(pixels.shape), "counts": _lengths(text).tolist()}, None)) == pixels.sum()
    if pixels.any():
        y, x = np.nonzero(pixels)
        assert bounding_box(mask) == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
