"""Pictures with boxes from a COCO annotation file, as the examples train on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


class CocoFolder(Dataset):
    """Pictures stretched to a square: ``image`` (3, side, side) in [0, 1], ``boxes`` (N, 4) in pixels, ``labels`` (N,).

    Labels count from 0 in the order of the file's categories. Crowds and boxes without area are left out.
    """

    def __init__(self, annotations: Path, images: Path, side: int) -> None:
        data = json.loads(annotations.read_text(encoding="utf-8"))
        self.names = tuple(category["name"] for category in data["categories"])
        index = {category["id"]: i for i, category in enumerate(data["categories"])}
        self.side = side
        self.files = [images / picture["file_name"] for picture in data["images"]]
        by_picture: dict[int, list[tuple[int, list[float]]]] = {picture["id"]: [] for picture in data["images"]}
        for box in data["annotations"]:
            if not box.get("iscrowd") and min(box["bbox"][2:]) > 0:
                by_picture[box["image_id"]].append((index[box["category_id"]], box["bbox"]))
        self.boxes = list(by_picture.values())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """``image``, ``boxes`` x0, y0, x1, y1 and ``labels`` of one picture."""
        with Image.open(self.files[index]) as picture:
            scale = torch.tensor([self.side / picture.width, self.side / picture.height] * 2)
            pixels = np.asarray(picture.convert("RGB").resize((self.side, self.side)), dtype=np.float32)
        image = torch.from_numpy(pixels / 255).permute(2, 0, 1)
        boxes = torch.tensor([box for _, box in self.boxes[index]]).reshape(-1, 4)  # x, y, width, height
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * scale
        return image, corners, torch.tensor([label for label, _ in self.boxes[index]], dtype=torch.int64)
