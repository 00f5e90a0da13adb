"""COCO's figures against pycocotools', which defines them."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from data_sets import data_set, detections, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.errors import DataError
from fine_edge.evaluate import average_precision as module
from fine_edge.evaluate.average_precision import average_precision
from fine_edge.evaluate.coco_data import objects as as_objects

pytestmark = pytest.mark.host  # pycocotools is the tests' own


def rows_of(objects, **more):
    """Objects as pycocotools takes them, numbered from 1; ``more`` are lists of further fields."""
    fields = {
        "image_id": objects.image_ids.tolist(),
        "category_id": objects.category_ids.tolist(),
        "bbox": objects.boxes_xywh.tolist(),
        **more,
    }
    if objects.masks is not None:
        fields["segmentation"] = objects.masks.tolist()
    values = enumerate(zip(*fields.values(), strict=True), start=1)
    return [{"id": number, **dict(zip(fields, row, strict=True))} for number, row in values]


def by_pycocotools(data, found, kind="bbox"):
    """Its twelve figures and AP by category."""
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    areas = (
        found.boxes_xywh[:, 2:].prod(axis=1).tolist()
        if kind == "bbox"
        else [float(mask.area(runs)) for runs in found.masks.tolist()]
    )
    annotations = (
        rows_of(data.truth, area=data.truth.areas.tolist(), iscrowd=data.truth.crowd.astype(int).tolist()),
        rows_of(found, area=areas, score=found.scores.tolist(), iscrowd=[0] * len(found)),
    )
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for rows in annotations:
            side = COCO()
            side.dataset = {
                "images": [
                    {"id": i, "height": height, "width": width}
                    for i in data.images
                    for height, width in [data.sizes.get(i, (0, 0))]
                ],
                "categories": [{"id": c} for c in data.categories],
                "annotations": rows,
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    known = [precision[:, :, k][precision[:, :, k] > -1] for k in range(precision.shape[2])]
    return evaluation.stats, [values.mean() if values.size else -1.0 for values in known]


def twelve(figures):
    return [value for name, value in vars(figures).items() if name != "by_category"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    images=st.integers(1, 8),
    categories=st.integers(1, 4),
    objects=st.integers(0, 40),
    found=st.integers(0, 250),
)
def test_the_same_figures_as_pycocotools(seed, images, categories, objects, found):
    data, detected = drawn(seed, images, categories, objects, found)
    figures = average_precision(data, detected)
    stats, by_category = by_pycocotools(data, detected)
    np.testing.assert_allclose(twelve(figures), stats, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(figures.by_category.values()), by_category, rtol=0, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 40, 100])
def test_how_many_are_scored_at_once_changes_nothing(monkeypatch, at_once):
    data, detected = drawn(3, categories=4)
    whole = average_precision(data, detected)
    assert 0.05 < whole.ap < 1
    monkeypatch.setattr(module, "DETECTIONS_AT_ONCE", at_once)
    assert len(module._chunks(sorted(data.categories), detected)) > 1
    assert average_precision(data, detected) == whole


def test_what_is_found_exactly_scores_one_and_what_there_is_not_minus_one():
    data = data_set([1, 2], [7, 9], [(1, 7, (0, 0, 20, 20)), (2, 7, (5, 5, 50, 50))])
    figures = average_precision(data, detections([(1, 7, (0, 0, 20, 20), 0.9), (2, 7, (5, 5, 50, 50), 0.4)]))
    assert (figures.ap, figures.ap_s, figures.ap_m, figures.ap_l) == pytest.approx((1, 1, 1, -1))
    assert figures.by_category == pytest.approx({"kind 7": 1, "kind 9": -1})


def test_more_than_a_hundred_detections_of_an_image_and_category_do_not_count():
    data = data_set([1], [1], [(1, 1, (0, 0, 20, 20))])
    junk = [(1, 1, (200 + n, 200, 5, 5), 0.9) for n in range(100)]
    assert average_precision(data, detections([*junk, (1, 1, (0, 0, 20, 20), 0.1)])).ap == 0
    assert average_precision(data, detections([*junk[1:], (1, 1, (0, 0, 20, 20), 0.1)])).ap > 0


def outlined(rng, boxes, height, width):
    """Masks of boxes: a polygon with five corners for each, or the runs of an ellipse, as COCO compresses them."""
    from pycocotools import mask

    outlines = []
    y, x = np.mgrid[:height, :width]
    for left, top, wide, high in boxes:
        if rng.random() < 0.5:
            corners = [(0, 0.3), (0.5, 0), (1, 0.4), (0.8, 1), (0.1, 0.9)]
            outlines.append([[v for a, b in corners for v in (left + a * wide, top + b * high)]])
        else:
            inside = ((x - left - wide / 2) / (wide / 2)) ** 2 + ((y - top - high / 2) / (high / 2)) ** 2 <= 1
            runs = mask.encode(np.asfortranarray(inside.astype(np.uint8)))
            outlines.append({"size": [height, width], "counts": runs["counts"].decode()})
    return outlines


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 20), st.integers(0, 60))
def test_masks_score_as_pycocotools_scores_them(seed, images, objects, found):
    from pycocotools import mask as runs

    data, detected = drawn(seed, images, 2, objects, found)
    rng, size = np.random.default_rng(seed), (240, 320)
    truth_masks = outlined(rng, data.truth.boxes_xywh, *size)
    found_masks = [
        {"size": list(size), "counts": runs.merge(runs.frPyObjects(o, *size))["counts"].decode()}
        if isinstance(o, list)
        else o
        for o in outlined(rng, detected.boxes_xywh, *size)
    ]
    data = replace(
        data, truth=replace(data.truth, masks=as_objects(truth_masks)), sizes=dict.fromkeys(data.images, size)
    )
    detected = replace(detected, masks=as_objects(found_masks))
    figures = average_precision(data, detected, "segm")
    stats, by_category = by_pycocotools(data, detected, "segm")
    np.testing.assert_allclose(twelve(figures), stats, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(figures.by_category.values()), by_category, rtol=0, atol=1e-9)


def test_masks_are_needed_on_both_sides():
    data, detected = drawn(0)
    with pytest.raises(DataError, match="not every object has a mask"):
        average_precision(data, detected, "segm")
    with_masks = replace(data, truth=replace(data.truth, masks=as_objects([[[0.0, 0, 1, 0, 1, 1]]] * len(data.truth))))
    masked = replace(detected, masks=as_objects([{"size": [1, 1], "counts": "1"}] * len(detected)))
    with pytest.raises(
        DataError, match=r"in \d+\.png cannot be used \(the height and width of its picture are not known\)"
    ):
        average_precision(with_masks, masked, "segm")
