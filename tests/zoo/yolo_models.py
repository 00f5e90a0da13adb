"""YOLOs with random weights, each built once for a process; nobody may change them."""

from __future__ import annotations

import functools

import torch

from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import family_of
from fine_edge.zoo.load import load
from fine_edge.zoo.random_weights import photographs

SIDE = 160

yolo = family_of("yolo")


@functools.cache
def loaded(name: str):
    """As ``load`` gives it."""
    return load(find(name))


@functools.cache
def pictures(side: int = SIDE):
    """(2, 3, side, side) of photographs, letterboxed as ultralytics does."""
    return photographs(side, side, find("yolov8s").detector.preprocessing, count=2)


@functools.cache
def built(name: str, num_labels: int = 80):
    """With ultralytics' initial weights, FINE not at identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return yolo.build(find(name), num_labels, identity=False)


def learned_noise(model, seed: int = 0):
    """Parameters and statistics that are all different, in place."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and ".dfl." not in name:
                noise = 0.02 * torch.randn_like(tensor)
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return model
