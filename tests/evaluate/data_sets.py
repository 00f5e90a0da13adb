"""Data sets and detections, by hand or drawn: with crowds, ties, empty images, and sizes on COCO's borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fine_edge.evaluate.coco_data import CocoData, Found, Truth
from fine_edge.evaluate.comparison import compare as compare_sides
from fine_edge.evaluate.sides import read_sides

# Sides whose squares lie on and beside the borders of COCO's sizes.
SIDES = (8.0, 31.0, 32.0, 33.0, 95.0, 96.0, 97.0, 150.0)


def compare(a, b, **options):
    """The comparison of two evaluation files."""
    return compare_sides(*read_sides(a, b), **options)


def data_set(images, categories, objects):
    """``objects``: (image id, category id, (x, y, w, h)), with a trailing True for a crowd region."""
    rows = [(*entry, False)[:4] for entry in objects]
    truth = Truth(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[2][2] * row[2][3] for row in rows], dtype=np.float64),
        np.array([row[3] for row in rows], dtype=np.bool_),
    )
    names = {number: f"kind {number}" for number in categories}
    return CocoData(Path("data.json"), "ab" * 32, {number: f"{number}.png" for number in images}, names, truth)


def detections(rows):
    """``rows``: (image id, category id, (x, y, w, h), score)."""
    return Found(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def drawn(seed, images=6, categories=3, objects=24, found=160):
    """Detections that are objects moved a little, of another kind, or anywhere; scores take few values, so they tie."""
    rng = np.random.default_rng(seed)
    image_ids = rng.choice(np.arange(10, 10 + images), objects + 1)[:-1]
    kinds = rng.integers(1, categories + 1, objects)
    boxes = np.hstack([rng.uniform(0, 300, (objects, 2)), rng.choice(SIDES, (objects, 2))])
    crowd = rng.random(objects) < 0.15
    areas = boxes[:, 2] * boxes[:, 3] * rng.choice([1.0, 0.7], objects)  # of the object, which fills less than its box
    truth = Truth(image_ids, kinds, boxes, areas, crowd)
    names = {number: f"kind {number}" for number in range(1, categories + 2)}  # the last is never there
    data = CocoData(
        Path("drawn.json"), "", {number: f"{number}.png" for number in range(10, 10 + images)}, names, truth
    )
    if not objects:
        source = np.zeros(found, dtype=np.int64)
        truth_boxes = np.array([[10.0, 10.0, 40.0, 40.0]])
        here, kind = rng.choice(np.arange(10, 10 + images), found), np.ones(found, dtype=np.int64)
    else:
        source = rng.integers(0, objects, found)
        truth_boxes, here, kind = boxes, image_ids[source], kinds[source]
    moved = np.abs(truth_boxes[source] + rng.normal(0, 1, (found, 4)) * rng.choice([0.0, 3.0, 20.0], (found, 1)))
    kind = np.where(rng.random(found) < 0.8, kind, rng.integers(1, categories + 1, found))
    return data, Found(here, kind.astype(np.int64), moved, rng.integers(0, 12, found) / 11)
