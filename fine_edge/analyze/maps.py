"""The maps of a detector while it runs: those of its backbone's stages, and what its fusions take and give.

Forward hooks note them and stop the run behind the last; nothing in the model is changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.fusion.fine import Fine
from fine_edge.fusion.sampling import build_down
from fine_edge.zoo.load import LoadedDetector

# Stride of the paper's stage 1; what comes before is the stem.
_FIRST_STRIDE = 4
# The paper's l of the deepest fusion.
DEEPEST_LEVEL = 3


@dataclass(frozen=True)
class StageMap:
    """The last map (B, C, H, W) of a backbone's stage, counted as in the paper: stage 1 has a stride of 4 pixels."""

    stage: int
    stride: int
    map: Tensor


@dataclass(frozen=True)
class FusionMaps:
    """What a FINE block takes and gives.

    Attributes:
        name: ``l=3`` for the deepest fusion, as in the paper, then ``l=2``.
        block: the block.
        low, high: low-level map (B, C, H, W) and high-level map (B, C_high, H_high, W_high) that it takes.
        aligned: map (B, C, H, W) that it gives.
    """

    name: str
    block: Fine
    low: Tensor
    high: Tensor
    aligned: Tensor

    def modulation(self) -> Tensor:
        """Return M (B, C, H, W)."""
        return self.block.modulation_map(self.low, self.high)

    def high_tokens(self) -> Tensor:
        """Return the sampled high-level map (B, C, ceil(H_high / k), ceil(W_high / k))."""
        config, block = self.block.config, self.block
        return self._sampled(block.unify(self.high), config.k, block.down_high, config.high_kernel)

    def low_tokens(self, r: int) -> Tensor:
        """Return the low-level map (B, C, ceil(H / rk), ceil(W / rk)) as AATS samples it at a ratio r."""
        config, block = self.block.config, self.block
        return self._sampled(self.low, r * config.k, block.down_low, config.low_kernel)

    def _sampled(self, found: Tensor, kernel: int, own: nn.Module, own_kernel: int) -> Tensor:
        """Sample a map by the block's own operator, or by one like it with another kernel.

        A learned operator has weights for its own kernel alone; the average, which it starts as, stands for the others.
        """
        config = self.block.config
        like = build_down("max" if config.down == "max" else "avg", config.channels, kernel)
        sampled: Tensor = (own if kernel == own_kernel else like)(found)
        return sampled


@dataclass(frozen=True)
class Seen:
    """The maps of one run on images (B, 3, H, W)."""

    stages: tuple[StageMap, ...]
    fusions: tuple[FusionMaps, ...]


class _EnoughError(Exception):
    """Everything that was asked for has been seen."""


def fine_fusions(detector: LoadedDetector) -> list[Fine]:
    """Return the FINE blocks of a detector, deepest first; none where its fusions hold another method or nothing."""
    return [block for block in detector.family.fusions(detector.model) if isinstance(block, Fine)]


def look(detector: LoadedDetector, images: Tensor) -> Seen:
    """Run a detector on preprocessed images (B, 3, H, W) up to its last FINE block, and return the maps on the way."""
    run = detector.family.reference
    return watch(
        lambda: run(detector.model, images, raw=False),
        detector.family.backbone(detector.model),
        fine_fusions(detector),
        images,
    )


def watch(run: Callable[[], object], blocks: Sequence[nn.Module], fusions: Sequence[Fine], images: Tensor) -> Seen:
    """Return the maps that these blocks and fusions see while ``run`` runs on images (B, 3, H, W)."""
    maps: dict[nn.Module, tuple[Any, Any]] = {}
    wanted = [*blocks, *fusions]

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        maps[module] = inputs, output
        if len(maps) == len(wanted):
            raise _EnoughError

    hooks = [module.register_forward_hook(note) for module in wanted]
    try:
        with contextlib.suppress(_EnoughError):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    stages = _stages([maps[block][1] for block in blocks], images.shape[-2])
    return Seen(stages, tuple(_fusion(place, block, *maps[block]) for place, block in enumerate(fusions)))


def _fusion(place: int, block: Fine, inputs: tuple[Tensor, Tensor], aligned: Tensor) -> FusionMaps:
    low, high = inputs
    return FusionMaps(f"l={DEEPEST_LEVEL - place}", block, low, high, aligned)


def _stages(maps: Sequence[Tensor], height: int) -> tuple[StageMap, ...]:
    """Return the last map of each stride from :data:`_FIRST_STRIDE` on."""
    last = {2 ** round(math.log2(height / found.shape[-2])): found for found in maps}
    return tuple(
        StageMap(round(math.log2(stride)) - 1, stride, found)
        for stride, found in sorted(last.items())
        if stride >= _FIRST_STRIDE
    )


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient within the context, which halves the memory of a run."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def influence(response: Tensor, images: Tensor) -> Tensor:
    """Return |d response / d pixel| averaged over the input's channels (B, H, W), the paper's Eq. 11.

    Args:
        response: a sum of one number for each image; no image may depend on another.
        images: inputs (B, 3, H, W) that ask for gradients.
    """
    (slope,) = torch.autograd.grad(response, images, retain_graph=True)
    return slope.abs().mean(dim=1)
