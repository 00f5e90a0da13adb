"""A data set of four small pictures with a bright box each."""

import json

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 160, 128
NAMES = ("cell", "platelet")


def write_cells(folder, *, odd=True):
    """``train.json`` and ``images/`` in a folder.

    Where ``odd`` is set, the last picture holds a crowd and a box without area as well.
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures, boxes = [], []
    for index in range(4):
        pixels = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(8, 60, 2))
        pixels[y : y + 40, x : x + 48] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        pictures.append({"id": index, "file_name": f"{index}.png", "width": WIDTH, "height": HEIGHT})
        boxes.append({"id": index, "image_id": index, "category_id": 3 + 4 * (index % 2), "bbox": [x, y, 48, 40]})
    if odd:
        boxes.append({"id": 10, "image_id": 3, "category_id": 3, "bbox": [0, 0, 100, 100], "iscrowd": 1})
        boxes.append({"id": 11, "image_id": 3, "category_id": 3, "bbox": [5, 5, 0, 20]})
    categories = [{"id": 3 + 4 * index, "name": name} for index, name in enumerate(NAMES)]
    document = {"images": pictures, "annotations": boxes, "categories": categories}
    (folder / "train.json").write_text(json.dumps(document))
    return folder


def arguments(name, cells, out, *more, epochs=2):
    """Of the command, for two steps an epoch."""
    size = ("--input-size", "128x160", "--epochs", f"{epochs}", "--batch", "2", "--flips", "both")
    return [
        *(name, "--data", f"{cells / 'train.json'}", "--images", f"{cells / 'images'}"),
        *size,
        *("--out", f"{out}"),
        *more,
    ]
