"""Heatmaps of fusions: their figures by an independent loop, and what cannot be looked at."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from stacks import boxes, loaded, random_stack, write_pictures

from fine_edge.analyze.energy import regions
from fine_edge.analyze.heat_page import energy_table, gain_table
from fine_edge.analyze.heatmap import heatmaps
from fine_edge.errors import ConfigError, DataError, ImageError
from fine_edge.evaluate.coco_data import Truth
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.fusion.top_down import Sni
from fine_edge.preprocess import Preprocessing, preprocess

SIDE = 64
BOXES = {0: [(4, 6, 20, 18, 0), (30, 20, 10, 12, 0)], 1: [(0, 0, 40, 36, 0)], 2: [(8, 8, 5, 5, 0), (20, 20, 9, 9, 1)]}
"""x, y, width, height and crowd by picture."""


def write_labels(path, of=BOXES):
    images = [{"id": index, "file_name": f"{index}.png", "width": 48, "height": 40} for index in of]
    rows = [
        {"image_id": index, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd}
        for index, found in of.items()
        for x, y, w, h, crowd in found
    ]
    for number, row in enumerate(rows):
        row["id"] = number
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cell"}]}))
    return read_boxes(path)


def by_a_loop(model, path, objects, width=48, height=40):
    """Means of each map inside and outside of the boxes of one picture, pixel by pixel of the input."""
    pixels = np.asarray(Image.open(path).resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    with torch.no_grad():
        low = model.blocks[0](torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
        high = model.blocks[1](low)
        m = model.fine.modulation_map(low, high)
    means = {}
    for name, found in {"high": high, "low": low, "modulation": m, "aligned": low * m + low}.items():
        energy = found[0].abs().mean(0).numpy()
        energy = energy / energy.max()
        inside, outside = [], []
        for row in range(SIDE):
            for column in range(SIDE):
                x, y = (column + 0.5) * width / SIDE, (row + 0.5) * height / SIDE
                value = energy[row * energy.shape[0] // SIDE, column * energy.shape[1] // SIDE]
                hit = [crowd for x0, y0, w, h, crowd in objects if x0 <= x < x0 + w and y0 <= y < y0 + h]
                if 0 in hit:
                    inside.append(value)
                elif not hit:
                    outside.append(value)
        means[name] = np.mean(inside), np.mean(outside)
    return means


def test_the_figures_are_those_of_a_loop_over_pixels(tmp_path):
    model, folder = random_stack(), write_pictures(tmp_path / "in", 3)
    drawn = []
    data = write_labels(tmp_path / "labels.json")
    found = heatmaps(loaded(model), folder, (SIDE, SIDE), data, lambda number, seen: drawn.append((number, seen)))
    expected = [by_a_loop(model, folder / f"{index}.png", BOXES[index]) for index in BOXES]
    rows = found.to_json()["fusions"]
    assert [(row["fusion"], row["map"]) for row in rows] == [
        ("l=3", name) for name in ("high", "low", "modulation", "aligned")
    ]
    ratios = {}
    for row in rows:
        inside, outside = np.mean([one[row["map"]] for one in expected], axis=0)
        np.testing.assert_allclose([row["inside"], row["outside"]], [inside, outside], rtol=1e-5)
        assert row["ratio"] == pytest.approx(inside / outside, rel=1e-5)
        assert row["ci"][0] <= row["ratio"] <= row["ci"][1]
        assert (row["images"], row["objects"]) == (3, 4)
        ratios[row["map"]] = inside / outside
    assert {size: row["by_size"][size]["objects"] for row in rows for size in row["by_size"]} == {
        "small": 3,
        "medium": 1,
    }
    assert rows[0]["by_size"]["medium"]["ci"] is None  # of one picture
    (gain, *_) = found.to_json()["gains"]
    assert gain["ratio"] == pytest.approx(ratios["aligned"] / ratios["low"], rel=1e-5)
    assert [number for number, _ in drawn] == [0, 1, 2]
    assert all(one.min() >= 0 and one.max() == 1 for _, seen in drawn for one in seen.maps["l=3"].values())
    assert len(energy_table(found).rows) == 4
    assert [row[1] for row in gain_table(found).rows] == ["all", "small", "medium"]


def test_boxes_lie_on_the_input_where_the_picture_lies():
    """A letterbox: the picture of 40 x 20 fills rows 16 to 47 of an input of 64 x 64."""
    how = Preprocessing("letterbox", align="center")
    _, place = preprocess(np.zeros((20, 40, 3), np.uint8), 64, 64, how)
    truth = Truth(
        np.array([1, 1]),
        np.array([1, 1]),
        np.array([[0, 0, 10, 5], [20, 10, 20, 10]], float),
        np.array([50.0, 200.0]),
        np.array([False, True]),
    )
    where = regions(truth, place, 64, 64)
    rows, columns = np.nonzero(where.inside["all"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 23, 0, 15)
    assert where.objects == {"all": 1, "small": 1, "medium": 0, "large": 0}
    assert where.outside.sum() == 32 * 64 - 8 * 16 - 16 * 32
    assert not where.outside[:16].any()


def _nan(model):
    with torch.no_grad():
        model.fine.project.bias.fill_(float("nan"))
    return model


def _rival():
    model = random_stack()
    model.fine = Sni()
    return model


def _identity(model):
    model.fine.reset_to_identity()
    return model


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (boxes, ConfigError, "no fusion to look at"),
        (_rival, ConfigError, "no fusion to look at"),
        (lambda: _identity(random_stack()), ConfigError, "modulation is zero everywhere"),
        (lambda: _nan(random_stack()), DataError, "modulation map of the fusion l=3 is not finite"),
    ],
    ids=["without FINE", "rival", "identity", "NaN"],
)
def test_what_shows_nothing_is_an_error(tmp_path, model, error, words):
    folder = write_pictures(tmp_path / "in", 1)
    with pytest.raises(error, match=words):
        heatmaps(loaded(model()), folder, (SIDE, SIDE), None, lambda *_: None)


def test_labels_without_their_pictures_and_without_an_object_inside_are_errors(tmp_path):
    folder, detector = write_pictures(tmp_path / "in", 2), loaded(random_stack())

    def look(of):
        data = write_labels(tmp_path / "labels.json", of)
        heatmaps(detector, folder, (SIDE, SIDE), data, lambda *_: None)

    with pytest.raises(DataError, match=r"1 of 3 pictures are missing, such as 2\.png"):
        look(BOXES)
    with pytest.raises(DataError, match="no picture has pixels inside and outside"):
        look({0: [(0, 0, 48, 40, 0)]})
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:60])
    with pytest.raises(ImageError, match=r"0\.png"):
        look({0: BOXES[0]})
