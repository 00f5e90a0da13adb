"""Pictures as a network is trained on them: the exported graph's own preprocessing, boxes where the objects are."""

import json
import shutil

import numpy as np
import pytest
import torch
from cells import HEIGHT, WIDTH
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.errors import DataError
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.images import read_image
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.train.pictures import LabelledPictures, Sample, mirrored

LETTERBOX = Preprocessing("letterbox", align="center")


def pictures(cells, height=HEIGHT, width=WIDTH, how=LETTERBOX, flips=()):
    return LabelledPictures(read_boxes(cells / "train.json"), cells / "images", height, width, how, flips)


@given(st.sampled_from([1, 2]), st.integers(2, 40), st.integers(2, 40), st.data())
def test_a_mirrored_box_holds_the_same_pixels(axis, height, width, data):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    image = torch.zeros(3, height, width)
    image[:, y0:y1, x0:x1] = 1
    sample = Sample(image, torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32), torch.tensor([0]))
    turned = mirrored(sample, axis)
    left, top, right, bottom = turned.boxes_xyxy[0].long().tolist()
    assert turned.image[:, top:bottom, left:right].min() == 1
    assert turned.image.sum() == 3 * (bottom - top) * (right - left)
    back = mirrored(turned, axis)
    assert torch.equal(back.image, image)
    assert torch.equal(back.boxes_xyxy, sample.boxes_xyxy)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (96, 200), (200, 64)])
@pytest.mark.parametrize("how", [LETTERBOX, Preprocessing("stretch"), Preprocessing("letterbox", pad_value=None)])
def test_what_is_trained_on_is_what_the_graph_gets(cells, size, how):
    found = pictures(cells, *size, how)
    for index in range(4):
        image, boxes, classes = found[index]
        expected, place = preprocess(read_image(cells / "images" / f"{index}.png").pixels, *size, how)
        assert np.array_equal(image.numpy(), expected[0])
        document = json.loads((cells / "train.json").read_text())
        x, y, width, height = document["annotations"][index]["bbox"]
        assert place.to_picture(boxes.numpy())[0] == pytest.approx([x, y, x + width, y + height], abs=1e-3)
        assert classes.tolist() == [index % 2], "categories 3 and 7 count from 0; a crowd and a line are left out"
        left, top, right, bottom = (round(v) for v in boxes[0].tolist())
        assert image[:, top + 1 : bottom - 1, left + 1 : right - 1].mean() > image.mean()


def test_each_way_of_mirroring_happens_half_of_the_times(cells):
    found = pictures(cells, flips=(1, 2))
    torch.manual_seed(0)
    seen = {tuple(found[0].boxes_xyxy[0].tolist()) for _ in range(40)}
    assert len(seen) == 4


def test_missing_pictures_are_told_before_training(cells, tmp_path):
    with pytest.raises(DataError, match=r"4 of 4 pictures are missing, such as 0\.png"):
        LabelledPictures(read_boxes(cells / "train.json"), tmp_path, 64, 64, LETTERBOX, ())


def test_pictures_of_another_size_are_told_before_training(cells, tmp_path):
    cells = shutil.copytree(cells, tmp_path / "cells")  # the others of this session keep theirs
    document = json.loads((cells / "train.json").read_text())
    for image in document["images"]:
        image.update(height=2 * HEIGHT, width=2 * WIDTH)
    (cells / "train.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"4 of 4 pictures are not .*: 0\.png is {WIDTH}x{HEIGHT}, not {2 * WIDTH}x"):
        pictures(cells)
