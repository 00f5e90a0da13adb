"""Labelled pictures as inputs of a network, preprocessed as for the exported graph and mirrored at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.picture_sizes import require_labelled_sizes
from fine_edge.images import read_image
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.zoo.family import Sample

# The least side of a box in the input; smaller ones show nothing and vanish when coordinates round to FP32.
_LEAST_SIDE_PX = 0.01


def mirrored(sample: Sample, axis: int) -> Sample:
    """Return the picture mirrored along an axis of (3, H, W): 1 upside down, 2 left to right."""
    image, boxes, classes = sample
    low, high = (1, 3) if axis == 1 else (0, 2)
    turned = boxes.clone()
    turned[:, low], turned[:, high] = image.shape[axis] - boxes[:, high], image.shape[axis] - boxes[:, low]
    return Sample(image.flip(axis), turned, classes)


class LabelledPictures(Dataset[Sample]):
    """The pictures of a data set with their boxes, without crowds, boxes without area and boxes outside their picture.

    Args:
        data: boxes in COCO's format; classes count from 0 in the order of its categories.
        folder: folder of the pictures.
        height, width: size of the input in pixels.
        how: preprocessing from a picture to the input.
        flips: axes that are mirrored, each with a probability of one half.

    Attributes:
        by_name: files by their names in the data set.

    Raises:
        DataError: when a picture is missing or of another size than its labels, or there is nothing to learn. It is
            raised before the training.
    """

    def __init__(
        self, data: CocoData, folder: Path, height: int, width: int, how: Preprocessing, flips: tuple[int, ...]
    ) -> None:
        self.by_name = {name: folder / name for name in data.images.values()}
        self.files = [self.by_name[name] for name in data.images.values()]
        missing = [file for file in self.files if not file.is_file()]
        if missing:
            what = f"{len(missing)} of {len(self.files)} pictures are missing, such as {missing[0].name}"
            raise DataError(what, where=folder, hint="give the folder of the pictures with --images")
        require_labelled_sizes(data, folder)
        self.height, self.width, self.how, self.flips = height, width, how, flips
        index = {category: number for number, category in enumerate(data.categories)}
        truth = data.truth
        # Crowds and boxes without an area have no one box to be learned.
        usable = np.flatnonzero(~truth.crowd & (truth.boxes_xywh[:, 2:] > 0).all(axis=1))
        usable = usable[np.argsort(truth.image_ids[usable], kind="stable")]
        numbers, owners = np.array(list(data.images)), truth.image_ids[usable]
        # Sorted once by picture: a scan of all boxes for each picture grows with the square of the data.
        ends = zip(np.searchsorted(owners, numbers, "left"), np.searchsorted(owners, numbers, "right"), strict=True)
        self.objects = [
            (truth.boxes_xywh[rows], np.array([index[c] for c in truth.category_ids[rows].tolist()], dtype=np.int64))
            for rows in (usable[first:last] for first, last in ends)
        ]
        if not any(len(boxes) and len(self._upright(index).classes) for index, (boxes, _) in enumerate(self.objects)):
            raise DataError(
                f"has nothing to learn: none of its {len(truth)} boxes is one of an object, has an area and lies in its"
                " picture",
                where=data.path,
                hint="give annotations of detection; crowds (iscrowd 1) teach nothing",
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Return one picture, mirrored by torch's random numbers, whose state Trainer saves in its checkpoints."""
        sample = self._upright(index)
        for axis in self.flips:
            if torch.rand(()) < 0.5:
                sample = mirrored(sample, axis)
        return sample

    def _upright(self, index: int) -> Sample:
        """Return one picture without mirroring, with the boxes that it shows."""
        pixels = read_image(self.files[index]).pixels
        array, place = preprocess(pixels, self.height, self.width, self.how)
        xywh, classes = self.objects[index]
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        scale, offset = [place.scale_x, place.scale_y] * 2, [place.left, place.top] * 2
        boxes = corners * scale + offset
        height, width = pixels.shape[:2]
        shown = (corners[:, :2] < (width, height)).all(axis=1) & (corners[:, 2:] > 0).all(axis=1)
        shown &= (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE_PX).all(axis=1)
        return Sample(
            torch.from_numpy(array[0]),
            torch.from_numpy(boxes[shown].astype(np.float32)),
            torch.from_numpy(classes[shown]),
        )
