"""Detectors of a few convolutions, in the form that the zoo loads, and folders of small pictures."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn

from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.fine import Fine
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import LoadedDetector


class Stack(nn.Module):
    """Blocks one behind the other; with FINE, one fusion of the last two blocks' maps."""

    def __init__(self, blocks, fine=None):
        super().__init__()
        self.blocks, self.fine = nn.ModuleList(blocks), fine

    def forward(self, images):
        maps = [images]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return self.fine(maps[-2], maps[-1]) if self.fine else maps[-1]


def box(kernel, stride=1, channels=1):
    """A convolution that averages its input."""
    conv = nn.Conv2d(channels, 1, kernel, stride, padding=0 if stride > 1 else kernel // 2, bias=False)
    nn.init.constant_(conv.weight, 1 / kernel**2)
    return conv


def boxes(stages=2, number=12, kernel=3):
    """Stages of strides 4, 8, ...: one average that strides, then ``number`` of ``kernel x kernel``."""
    strided = [box(4, 4, 3), *(box(2, 2) for _ in range(stages - 1))]
    return Stack([nn.Sequential(first, *(box(kernel) for _ in range(number))) for first in strided])


def box_sigma(stage, number=12, kernel=3):
    """Sigma of such a stage's field: the variances (k^2 - 1) / 12 stride^2 of all averages before it add up."""
    variance, stride = (16 - 1) / 12, 4
    for level in range(stage):
        variance += (4 - 1) / 12 * stride**2 if level else 0
        stride *= 2 if level else 1
        variance += number * (kernel**2 - 1) / 12 * stride**2
    return variance**0.5


def random_stack(channels=8, seed=0):
    """Two stages with ReLU, and FINE at its fusion."""
    torch.manual_seed(seed)
    blocks = [nn.Conv2d(3, channels, 5, 4, 2), nn.Conv2d(channels, channels, 3, 2, 1)]
    fine = Fine(FineConfig(channels=channels, head_dim=4, k=1, r=2))
    return Stack([nn.Sequential(block, nn.ReLU()) for block in blocks], fine)


def loaded(model, sha256="0" * 64):
    """The model as the zoo would load it."""
    family = SimpleNamespace(
        reference=lambda model, images, raw: model(images),  # noqa: ARG005 - the zoo's signature
        backbone=lambda model: list(model.blocks),
        fusions=lambda model: [model.fine] if model.fine else [],
    )
    provenance = {"source": "torch", "sha256": sha256, "file": "stack.pt"}
    entry = find("fcos_mobilenetv3_fine")
    return LoadedDetector(entry, family, model.eval(), ("cell",), provenance, None, Preprocessing())


def write_pictures(folder, number=3, size=(48, 40)):
    """Pictures of noise, ``0.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder
