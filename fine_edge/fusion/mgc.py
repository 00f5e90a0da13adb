"""MGC, the multi-level global context of A2-FPN: context nodes collect the pixels of a level and give them back.

Source: M. Hu, Y. Li, L. Fang, S. Wang, "A2-FPN: Attention Aggregation based Feature Pyramid Network for Instance
Segmentation", CVPR 2021, feature extraction. It spans the whole pyramid and stands in the place of the lateral
convolutions. A collector (Eq. 1) gathers n_i contexts of level i by scaled cosine attention of learned semantic
entities, which a penalty keeps orthogonal (Eq. 2). Graph reasoning follows within a level (Eq. 4) and over all levels
(Eq. 5). A distributor (Eq. 6) gives the contexts back to every pixel.

Only the paper's summary was available. Sizes are those that the training logs of the FINE authors print
(HyungseopLee/FINE-FPN): 256, 192, 128 and 64 contexts from the finest level on, a graph network of three layers without
weights for an adjacency, and distributors whose products are those of each level with its own contexts. What the logs
do not say is free here:

* A graph needs an adjacency. Here it is the complete graph's, which has no weights: a node loses the mean of all nodes,
  so that contexts of one level hear of those of the others. The network's result is added to the nodes.
* The attention is the cosine of pixel and entity, or of query and context, times sqrt(C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.sampling import feature_map, tokens
from fine_edge.fusion.top_down import Laterals

# The ratio of a node's channels to its channels inside the graph network.
NARROWING = 4
# n_i, the number of contexts of each level, finest first.
CONTEXTS = (256, 192, 128, 64)


def _direction(x: Tensor) -> Tensor:
    """Normalise (..., C) to unit vectors."""
    # Divided first, so that the sum of squares is a mean, which FP16 can hold.
    return F.normalize(x / math.sqrt(x.shape[-1]), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with one head, from (B, n, C), (B, m, C), (B, m, C_out) to (B, n, C_out)."""
    return torch.softmax(q @ k.transpose(1, 2), -1) @ v


class Collector(nn.Module):
    """The collector of Eq. 1, in which each semantic entity attends to the pixels of its direction."""

    def __init__(self, in_channels: int, contexts: int, channels: int) -> None:
        super().__init__()
        self.entities = nn.Parameter(torch.empty(contexts, in_channels))
        nn.init.orthogonal_(self.entities)
        self.value = nn.Linear(in_channels, channels, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, N, C_in) to contexts (B, n, C)."""
        scale = math.sqrt(self.entities.shape[1])
        entities = (_direction(self.entities) * scale).expand(pixels.shape[0], -1, -1)
        return _attend(entities, _direction(pixels), self.value(pixels))

    def orthogonality(self) -> Tensor:
        """Compute Eq. 2, the squared distance of the entities' Gram matrix from identity; a trainer adds 1e-4 of it."""
        gram = self.entities @ self.entities.T
        return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


class GraphReasoning(nn.Module):
    """Eq. 4 and 5, one step of graph convolution over the complete graph of the nodes, narrow inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // NARROWING
        self.narrow = nn.Linear(channels, narrow)
        self.state = nn.Linear(narrow, narrow)
        self.widen = nn.Linear(narrow, channels)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map nodes (B, n, C) to (B, n, C)."""
        x = F.relu(self.narrow(nodes))
        # The complete graph's adjacency, the module's own choice: a node loses the mean of all nodes.
        x = F.relu(self.state(x - x.mean(1, keepdim=True)))
        return nodes + self.widen(x)  # type: ignore[no-any-return]


class Distributor(nn.Module):
    """The distributor of Eq. 6, in which each pixel of a level attends to the level's contexts."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(in_channels, channels, bias=False)
        self.project = nn.Linear(channels, channels, bias=False)
        self.residual = nn.Linear(in_channels, channels, bias=False)

    def forward(self, pixels: Tensor, contexts: Tensor) -> Tensor:
        """Map pixels (B, N, C_in) and contexts (B, n, C) to (B, N, C)."""
        query = _direction(self.query(pixels)) * math.sqrt(contexts.shape[-1])
        read = self.project(_attend(query, _direction(contexts), contexts))
        return self.residual(pixels) + read  # type: ignore[no-any-return]


class Mgc(Laterals):
    """The multi-level global context of a pyramid.

    Args:
        in_channels: number of channels of each of the backbone's maps, finest first; at most four.
        channels: number of channels of the neck and of the contexts, a multiple of 4.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__(in_channels, channels)
        levels = len(self.in_channels)
        if levels > len(CONTEXTS) or channels % NARROWING:
            raise ConfigError(
                f"{levels} levels of {channels} channels: needs at most {len(CONTEXTS)} levels and channels that"
                f" {NARROWING} divides",
                where="Mgc",
            )
        self.contexts_by_level = CONTEXTS[:levels]
        self.collect = nn.ModuleList(
            Collector(count, contexts, channels)
            for count, contexts in zip(self.in_channels, self.contexts_by_level, strict=True)
        )
        self.reason_within = nn.ModuleList(GraphReasoning(channels) for _ in self.in_channels)
        self.reason = GraphReasoning(channels)
        self.distribute = nn.ModuleList(Distributor(count, channels) for count in self.in_channels)

    def contexts(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Map the pixels of every level (B, N_i, C_i) to its contexts (B, n_i, C)."""
        collected = [
            reason(collect(x)) for collect, reason, x in zip(self.collect, self.reason_within, pixels, strict=True)
        ]
        return list(self.reason(torch.cat(collected, 1)).split(list(self.contexts_by_level), 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the backbone's maps (B, C_i, H_i, W_i) to (B, C, H_i, W_i) with the contexts of all levels."""
        pixels = [tokens(x) for x in maps]  # (B, H_i * W_i, C_i) each
        refined = [
            distribute(x, contexts)
            for distribute, x, contexts in zip(self.distribute, pixels, self.contexts(pixels), strict=True)
        ]
        return [feature_map(x, *like.shape[-2:]) for x, like in zip(refined, maps, strict=True)]

    def entity_macs(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Return the multiply-accumulates of the entities' product with pixels, for maps of these heights, widths."""
        weights = [collect.entities.numel() for collect in cast("list[Collector]", list(self.collect))]
        return sum(count * height * width for count, (height, width) in zip(weights, sizes, strict=True))
