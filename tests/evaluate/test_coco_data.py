"""Annotation and results files: what is read, and that nothing broken passes."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_results import read_results
from fine_edge.evaluate.data import read_boxes

GOOD = {
    "images": [{"id": 5, "file_name": "a/b.jpg", "width": 9}, {"id": 6, "file_name": "c.jpg"}],
    "annotations": [
        {"id": 0, "image_id": 5, "category_id": 3, "bbox": [1, 2, 30, 40], "area": 700.5, "iscrowd": 0},
        {"image_id": 5, "category_id": 4, "bbox": [0.5, 2, 3, 4], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "cat", "supercategory": "animal"}],
}
RESULTS = [
    {"image_id": 5, "category_id": 3, "bbox": [1.25, 2, 30, 40], "score": 0.125},
    {"image_id": 6, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 1},
]


def written(tmp_path, data, name="data.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def changed(key, index, **fields):
    data = json.loads(json.dumps(GOOD))
    data[key][index].update(fields)
    return data


def test_what_is_read(tmp_path):
    data = read_boxes(written(tmp_path, GOOD))
    assert (data.images, data.categories) == ({5: "a/b.jpg", 6: "c.jpg"}, {3: "dog", 4: "cat"})
    truth = data.truth
    np.testing.assert_array_equal(truth.boxes_xywh, [[1, 2, 30, 40], [0.5, 2, 3, 4]])
    assert (truth.areas.tolist(), truth.crowd.tolist()) == ([700.5, 12.0], [False, True])
    assert (truth.image_ids.tolist(), truth.category_ids.tolist()) == ([5, 5], [3, 4])


def test_without_some_images(tmp_path):
    data = read_boxes(written(tmp_path, GOOD))
    assert (data.without({5}).images, len(data.without({5}).truth)) == ({6: "c.jpg"}, 0)
    assert len(data.without({6}).truth) == 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{", "is no JSON"),
        ([], "has no images, annotations and categories"),
        ({**GOOD, "images": {}}, "images is no list"),
        ({**GOOD, "images": []}, "has no images"),
        ({**GOOD, "categories": []}, "has no categories"),
        ({**GOOD, "images": [1]}, r"images\[0\] cannot be used"),
        (changed("images", 1, id=5), r"images\[1\] has the id 5 of another entry"),
        (changed("images", 1, id=5.5), r"images\[1\] cannot be used"),
        (changed("images", 0, file_name="../../etc/passwd"), r"images\[0\] lies outside of any folder"),
        (changed("images", 0, file_name="/etc/passwd"), r"images\[0\] lies outside of any folder"),
        (changed("annotations", 1, image_id=7), r"annotations\[1\] is of 7, which is not in images"),
        (changed("annotations", 1, category_id=7), r"annotations\[1\] is of 7, which is not in categories"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotations\[0\] cannot be used"),
        (changed("annotations", 0, bbox=[1, 2, -3, 4]), r"annotations\[0\] cannot be used .*is no box"),
        (changed("annotations", 0, bbox=[1, 2, float("nan"), 4]), r"annotations\[0\] cannot be used .*is no box"),
        (changed("annotations", 0, area=float("inf")), r"annotations\[0\] has the area inf"),
        ({**GOOD, "annotations": [{"image_id": 5, "category_id": 3}]}, r"annotations\[0\] lacks 'bbox'"),
    ],
)
def test_what_is_broken_is_named(tmp_path, data, says):
    with pytest.raises(DataError, match=says):
        read_boxes(written(tmp_path, data))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no such file"):
        read_boxes(tmp_path / "none.json")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["images", "annotations", "categories"]),
    st.sampled_from(["id", "file_name", "name", "image_id", "category_id", "bbox", "area", "iscrowd", None]),
    JSON,
)
def test_anything_in_any_place_is_read_or_refused(tmp_path, key, field, value):
    data = json.loads(json.dumps(GOOD))
    if field is None:
        data[key] = value
    else:
        data[key][0][field] = value
    with contextlib.suppress(DataError):
        assert np.isfinite(read_boxes(written(tmp_path, data)).truth.boxes_xywh).all()


def test_what_is_read_of_results(tmp_path):
    data = read_boxes(written(tmp_path, GOOD))
    found = read_results(written(tmp_path, RESULTS, "results.json"), data)
    assert found.scores.tolist() == [0.125, 1.0]
    assert found.boxes_xywh.tolist() == [[1.25, 2, 30, 40], [0, 0, 1, 1]]
    assert (found.image_ids.tolist(), found.category_ids.tolist(), found.masks) == ([5, 6], [3, 4], None)


TRIANGLE = [[0.0, 0.0, 10.0, 0.0, 5.0, 8.0]]
RUNS = {"size": [2, 3], "counts": [1, 2, 3]}


def test_masks_are_read_where_every_object_has_one(tmp_path):
    data = json.loads(json.dumps(GOOD))
    assert read_boxes(written(tmp_path, data)).truth.masks is None
    data["annotations"][0]["segmentation"] = TRIANGLE
    assert read_boxes(written(tmp_path, data)).truth.masks is None
    data["annotations"][1]["segmentation"] = RUNS
    data["images"][0].update(height=2, width=3)
    read = read_boxes(written(tmp_path, data))
    assert (read.truth.masks.tolist(), read.sizes) == ([TRIANGLE, RUNS], {5: (2, 3)})
    assert read.truth.taken(np.array([1])).masks.tolist() == [RUNS]


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("inf")]],
        {"size": [2, 3], "counts": [1, 2, 4]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2], "counts": [2]},
        {"size": [2, 3]},
        "polygon",
        7,
    ],
)
def test_broken_masks_are_named(tmp_path, outline):
    with pytest.raises(DataError, match=r"annotations\[0\]"):
        read_boxes(written(tmp_path, changed("annotations", 0, segmentation=outline)))


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({}, "is no list of detections"),
        ([{**RESULTS[0], "image_id": 7}], "entry 0 is of image 7, which .* does not have"),
        ([RESULTS[0], {**RESULTS[0], "category_id": 7}], "entry 1 is of category 7"),
        ([{**RESULTS[0], "score": float("nan")}], "entry 0 has the score nan"),
        ([{**RESULTS[0], "bbox": "1234x"}], "entry 0 cannot be used"),
        ([{"image_id": 5, "category_id": 3, "score": 1}], "entry 0 lacks 'bbox'"),
        ([None], "entry 0 cannot be used"),
    ],
)
def test_broken_results_are_named(tmp_path, results, says):
    data = read_boxes(written(tmp_path, GOOD))
    with pytest.raises(DataError, match=says):
        read_results(written(tmp_path, results, "results.json"), data)
