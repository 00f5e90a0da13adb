"""Detectors that are built once for a worker, and a folder for their large files that is gone afterwards."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load


def distinct(name: str):
    """A detector with random weights in which no two tensors are alike, so that a swap of two cannot hide."""
    model = load(find(name), None, seed=1).model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def r18():
    return distinct("rtdetr_r18")


@pytest.fixture(scope="session")
def r50():
    return distinct("rtdetr_r50")


@pytest.fixture(scope="session")
def r18_fine():
    return distinct("rtdetr_r18_fine")


@pytest.fixture(scope="session")
def image():
    """(1, 3, 96, 160) of noise."""
    return torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
