"""Annotation and results files: what is read, and that nothing broken passes."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import read_results
from fine_edge.evaluate.segment_data import read_boxes

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
        (changed("images", 0, file_name="../../etc/passwd"), r"images\[0\].*lies outside of any folder"),
        (changed("images", 0, file_name="/etc/passwd"), r"images\[0\].*lies outside of any folder"),
        (changed("images", 0, file_name="..\\b.jpg"), r"images\[0\].*lies outside of any folder"),
        (changed("images", 0, file_name="C:\\b.jpg"), r"images\[0\].*lies outside of any folder"),
        (changed("images", 0, file_name="\\\\host\\b.jpg"), r"images\[0\].*lies outside of any folder"),
        (changed("images", 0, file_name="a\0b.jpg"), r"images\[0\].*is no file's"),
        (changed("images", 0, file_name="\ud800.jpg"), r"images\[0\].*is no file's"),
        (changed("images", 0, file_name="é" * 128), r"images\[0\].*is longer than a file's can be"),
        (changed("images", 0, file_name="a/" * 2000), r"images\[0\].*is longer than a file's can be"),
        (changed("images", 0, file_name=""), r"images\[0\].*is no file's"),
        (changed("images", 0, file_name=None), r"images\[0\].*is no text"),
        (changed("images", 0, id="a"), r"images has ids that are text and ids that are numbers, such as 'a' and 6"),
        (changed("images", 0, id=True), r"images\[0\] cannot be used \(True is no id"),
        (
            changed("annotations", 0, image_id="5"),
            r"annotations\[1\].*id 5 is a number where those before are text",
        ),
        (changed("annotations", 1, id=0), r"annotations\[1\] has the id 0 of another entry"),
        (changed("annotations", 0, area=-1), r"annotations\[0\].*the area is -1"),
        (changed("annotations", 0, iscrowd="0"), r"annotations\[0\].*iscrowd is '0'"),
        (changed("annotations", 0, image_id=7), "has nothing to find: none of its 1 annotations is of an object"),
        (changed("annotations", 0, category_id=7), "has nothing to find"),
        ({**GOOD, "annotations": []}, "has nothing to find: none of its 0 annotations"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotations\[0\] cannot be used"),
        (changed("annotations", 0, bbox=[1, 2, -3, 4]), r"annotations\[0\] cannot be used .*is no box"),
        (changed("annotations", 0, bbox=[1, 2, 1e200, 4]), r"annotations\[0\] cannot be used .*is no box"),
        (changed("annotations", 0, bbox=[1, 2, float("nan"), 4]), r"annotations\[0\] cannot be used .*is no box"),
        (changed("annotations", 0, area=float("inf")), r"annotations\[0\].*the area is inf"),
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


def test_ids_of_any_kind_are_numbered(tmp_path):
    """In the order of pycocotools, which tells ties apart by it."""
    numbers = {5: "b/9", 6: "a/10", 3: 10**19 + 3, 4: 10**19}
    text = json.dumps(GOOD)
    for number, one in numbers.items():
        text = text.replace(f'"id": {number},', f'"id": {json.dumps(one)},')
        text = text.replace(f'"image_id": {number},', f'"image_id": {json.dumps(one)},')
        text = text.replace(f'"category_id": {number},', f'"category_id": {json.dumps(one)},')
    data = read_boxes(written(tmp_path, text))
    assert (data.images, data.categories) == ({2: "a/b.jpg", 1: "c.jpg"}, {2: "dog", 1: "cat"})
    assert (data.truth.image_ids.tolist(), data.truth.category_ids.tolist()) == ([2, 2], [2, 1])
    results = [{**RESULTS[1], "image_id": "a/10", "category_id": str(10**19)}]
    found = read_results(written(tmp_path, results, "results.json"), data)
    assert (found.image_ids.tolist(), found.category_ids.tolist()) == ([1], [1])
    with pytest.raises(DataError, match="entry 0 is of image 1,"):
        read_results(written(tmp_path, [{**results[0], "image_id": 1}], "results.json"), data)


def test_what_pycocotools_leaves_out_is_left_out_and_said(tmp_path, capsys):
    data = json.loads(json.dumps(GOOD))
    data["annotations"] += [{"image_id": 7, "category_id": 3}, {"image_id": 5, "category_id": 9, "bbox": None}]
    read = read_boxes(written(tmp_path, data))
    assert len(read.truth) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "left out 1 annotations that are of none of its categories, such as annotations[3]" in said
    found = read_results(written(tmp_path, [*RESULTS, {**RESULTS[0], "category_id": 9}], "results.json"), read)
    assert len(found) == 2
    assert "left out 1 detections of categories" in " ".join(capsys.readouterr().err.split())


def test_an_annotation_without_a_category_is_told_from_one_of_another(tmp_path):
    with pytest.raises(DataError, match=r"annotations\[2\] lacks 'category_id'"):
        read_boxes(written(tmp_path, {**GOOD, "annotations": [*GOOD["annotations"], {"image_id": 5}]}))


def test_names_that_no_picture_is_read_by_may_be_anything(tmp_path):
    data = json.loads(json.dumps(GOOD))
    data["images"] = [{"id": 5, "file_name": "../x"}, {"id": 6}]
    data["categories"][1].pop("name")
    path = written(tmp_path, data)
    assert read_boxes(path, pictures=False).categories == {3: "dog", 4: "4"}
    with pytest.raises(DataError, match="outside of any folder"):
        read_boxes(path)


def test_windows_names_are_folders_and_files(tmp_path):
    data = read_boxes(written(tmp_path, changed("images", 0, file_name="images\\a.jpg")))
    assert data.images[5] == "images/a.jpg"


def test_of_two_categories_of_a_name_the_empty_one_is_left_out(tmp_path):
    data = json.loads(json.dumps(GOOD))
    data["categories"] = [{"id": 0, "name": "dog", "supercategory": "none"}, *data["categories"]]
    assert read_boxes(written(tmp_path, data)).categories == {3: "dog", 4: "cat"}
    data["categories"][2]["name"] = "dog"
    read = read_boxes(written(tmp_path, data))
    assert (read.categories, read.shown_categories()) == ({3: "dog", 4: "dog"}, {3: "dog (3)", 4: "dog (4)"})
    data["annotations"] = data["annotations"][:1]
    data["categories"][0]["name"] = data["categories"][2]["name"] = "cat"
    assert read_boxes(written(tmp_path, data)).categories == {0: "cat", 3: "dog"}, "one of two that are empty stays"


@pytest.mark.parametrize("side", [-480, 0, 480.5, "n/a", None, 2**31, float("nan")])
def test_a_size_that_is_none_is_as_if_it_were_not_stated(tmp_path, side):
    assert read_boxes(written(tmp_path, changed("images", 0, height=side, width=640))).sizes == {}


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({}, "is no list of detections"),
        ([{**RESULTS[0], "image_id": 7}], "entry 0 is of image 7, which .* does not have"),
        ([{**RESULTS[0], "category_id": 7}], "none of its 1 detections is of a category of"),
        ([], "is empty"),
        ([RESULTS[0], {**RESULTS[0], "image_id": "5"}], "entry 1 .*the id '5' is text where those before are numbers"),
        ([{**RESULTS[0], "bbox": [1, 2, 3, 4, 5]}], "entry 0 cannot be used"),
        ([{**RESULTS[0], "score": float("nan")}], "entry 0 cannot be used .the score is nan"),
        ([{**RESULTS[0], "bbox": "1234x"}], "entry 0 cannot be used"),
        ([{"image_id": 5, "category_id": 3, "score": 1}], "entry 0 lacks 'bbox'"),
        ([None], "entry 0 cannot be used"),
    ],
)
def test_broken_results_are_named(tmp_path, results, says):
    data = read_boxes(written(tmp_path, GOOD))
    with pytest.raises(DataError, match=says):
        read_results(written(tmp_path, results, "results.json"), data)
