"""Annotation and results files as tools write them, against pycocotools on the very same files."""

import contextlib
import io
import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_average_precision import twelve

from fine_edge.errors import DataError
from fine_edge.evaluate.average_precision import average_precision
from fine_edge.evaluate.coco_data import read_results
from fine_edge.evaluate.segment_data import read_boxes

pytestmark = pytest.mark.host  # pycocotools is the tests' own

HEIGHT, WIDTH = 60, 80


def triangle(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x, y + h]]


def runs_of(box):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y, w, h = map(int, box)
    mask[y : y + h, x : x + w] = 1
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes, flat.size]).tolist()}


def compressed(box):
    from pycocotools import mask

    found = mask.frPyObjects(runs_of(box), HEIGHT, WIDTH)
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def files(seed):
    """A data set and results on it, with masks of all kinds."""
    rng = random.Random(seed)
    ids = [10, 9, 2, 3]
    annotations, results = [], []
    for number in range(1, 19):
        box = [rng.randint(0, 40), rng.randint(0, 30), rng.randint(4, 36), rng.randint(4, 28)]
        image, category = rng.choice(ids), rng.choice([1, 2])
        outline = rng.choice([triangle, runs_of, compressed])(box)
        common = {"image_id": image, "category_id": category, "segmentation": outline}
        annotations.append({**common, "id": number, "bbox": box, "area": box[2] * box[3] * 0.5, "iscrowd": 0})
        for _ in range(3):
            moved = [float(max(0, v + rng.choice([0, 0, 1, 3]))) for v in box]
            found = {**common, "segmentation": rng.choice([triangle, compressed])(moved)}
            results.append({**found, "bbox": moved, "score": rng.randint(1, 5) / 5})
    annotations[0]["iscrowd"] = 1
    data = {
        "images": [{"id": one, "file_name": f"{one}.jpg", "height": HEIGHT, "width": WIDTH} for one in ids],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    return data, results


def renumbered(key, name):
    """What gives every id of a kind another form."""

    def change(data, results):
        for entry in data[key]:
            entry["id"] = name(entry["id"])
        reference = {"images": "image_id", "categories": "category_id"}[key]
        for entry in (*data["annotations"], *results):
            entry[reference] = name(entry[reference])

    return change


def every(which, **fields):
    """What sets fields in every annotation ("data") or detection ("results")."""

    def change(data, results):
        for entry in data["annotations"] if which == "data" else results:
            entry.update(fields)

    return change


def without(field):
    def change(_data, results):
        for entry in results:
            entry.pop(field)

    return change


def one(which, index, **fields):
    def change(data, results):
        (results if which == "results" else data[which])[index].update(fields)

    return change


def more(which, *entries):
    def change(data, results):
        (results if which == "results" else data[which]).extend(entries)

    return change


BOX = {"image_id": 3, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0, "id": 900}
READ = {
    "nothing": lambda _data, _results: None,
    "text": renumbered("images", "x{}".format),
    "text-of-numbers": renumbered("images", str),
    "large": renumbered("images", lambda value: value + 10**19),
    "enormous": renumbered("images", lambda value: value + 10**40),
    "negative": renumbered("images", lambda value: -value),
    "floats": renumbered("images", float),
    "categories-of-text": renumbered("categories", str),
    "boxes-of-text": one("annotations", 3, bbox=["1", "2.5", "30", "20"]),
    "area-zero": every("data", area=0),
    "crowd-as-a-bool": one("annotations", 2, iscrowd=True),
    "crowd-of-two": one("annotations", 2, iscrowd=2),
    "ignore": one("annotations", 3, ignore=1),
    "of-no-image": more("annotations", {**BOX, "image_id": 77}),
    "of-no-category": more("annotations", {**BOX, "category_id": 77}),
    "found-of-no-category": more("results", {**BOX, "category_id": 77, "score": 1.0}),
    "empty-category": more("categories", {"id": 0, "name": "root", "supercategory": "none"}),
    "same-name": more("categories", {"id": 0, "name": "dog"}),
    "two-of-a-name": one("categories", 0, name="dog"),
    "a-name-that-is-none": one("categories", 0, name=7),
    "pictures-of-one-name": one("images", 0, file_name="9.jpg"),
    "infinity-in-what-is-not-needed": one("images", 0, exif=float("inf"), date_captured=float("nan")),
    "licences": lambda data, _results: data.update(licenses="none", info=[7]),
    "keypoints": every("data", keypoints=[0] * 51, num_keypoints=0),
    "large-integers": one("annotations", 3, bbox=[10**15, 0, 5, 5]),
}
BOXES_ALONE = {
    "boxes-for-polygons": one("annotations", 3, segmentation=[[1, 2, 30, 40], [5, 5, 60, 6]]),
    "four-numbers-and-none": one("annotations", 3, segmentation=[[1, 2, 3, 4], []]),
    "no-outline": one("annotations", 3, segmentation=[[]]),
    "null": every("data", segmentation=None),
    "runs-of-text": one("annotations", 3, segmentation={"size": [HEIGHT, WIDTH], "counts": "\u00e9"}),
    "runs-that-end-early": one("annotations", 3, segmentation={"size": [HEIGHT, WIDTH], "counts": [5]}),
    "sides-of-text": one("images", 0, height="n/a"),
    "negative-height": one("images", 0, height=-HEIGHT),
    "no-sizes": lambda data, _results: [entry.pop("width") for entry in data["images"]],
    "no-masks-found": without("segmentation"),
}
MASKS = {
    "a-line-behind": one("annotations", 3, segmentation=[[1, 2, 30, 40, 7, 50], [5, 5, 60, 6]]),
    "points-too-many": one("annotations", 3, segmentation=[[1, 2, 30, 40, 7, 50, 3]]),
    "outside": one("annotations", 3, segmentation=[[-50, -20, 300, 40, 7, 500]]),
    "runs-of-another-size": one("annotations", 3, segmentation={"size": [2, 2], "counts": [0, 4]}),
    "no-boxes-found": lambda _data, results: [
        entry.pop("bbox") and entry.update(segmentation=compressed([1, 1, 9 + i, 9])) for i, entry in enumerate(results)
    ],
}


def by_pycocotools(data, results, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(data)
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def both(folder, changes, seed, kind):
    """Figures of ours and of pycocotools on files with these changes."""
    data, results = files(seed)
    for change in changes:
        change(data, results)
    paths = folder / "data.json", folder / "results.json"
    for path, document in zip(paths, (data, results), strict=True):
        path.write_text(json.dumps(document))
    read = read_boxes(paths[0], pictures=False)
    ours = twelve(average_precision(read, read_results(paths[1], read), kind))
    return ours, by_pycocotools(*paths, kind)


@pytest.mark.parametrize("name", [*READ, *BOXES_ALONE, *MASKS])
def test_boxes_score_as_pycocotools_scores_them(tmp_path, name):
    ours, theirs = both(tmp_path, [{**READ, **BOXES_ALONE, **MASKS}[name]], 1, "bbox")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [*READ, *MASKS])
def test_masks_score_as_pycocotools_scores_them(tmp_path, name):
    ours, theirs = both(tmp_path, [{**READ, **MASKS}[name]], 1, "segm")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**20), st.lists(st.sampled_from(sorted(READ)), max_size=4), st.sampled_from(["bbox", "segm"]))
@example(0, ["text", "large"], "bbox")
def test_any_of_it_together_is_the_same_or_refused(tmp_path, seed, names, kind):
    try:
        ours, theirs = both(tmp_path, [READ[name] for name in names], seed, kind)
    except (DataError, TypeError):  # what cannot be combined
        return
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
