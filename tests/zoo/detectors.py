"""Detectors as the tests of exporting need them: FINE off the identity, and no weight or bias neutral."""

from __future__ import annotations

import torch

from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load


def distinct(name: str):
    """Realistic random weights, moved a little: a bias that gets lost or a norm left out then shows."""
    model = load(find(name), None, seed=1).model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        for key, parameter in model.named_parameters():
            if ".fine." in key:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model
