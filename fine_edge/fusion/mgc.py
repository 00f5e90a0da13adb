"""MGC, the multi-level global context of A2-FPN: context nodes collect the pixels of all levels and are read by them.

Source: M. Hu, Y. Li, L. Fang, S. Wang, "A2-FPN: Attention Aggregation based Feature Pyramid Network for Instance
Segmentation", CVPR 2021, feature extraction. A collector (Eq. 1) gathers n_i = 64 (6 - i) contexts of level i by scaled
cosine attention of learned semantic entities, which a penalty keeps orthogonal (Eq. 2). Graph reasoning follows within
a level (Eq. 4) and over all levels (Eq. 5). A distributor (Eq. 6) gives the contexts back to every pixel.

MGC is a module of the whole pyramid. A fusion method sees two neighbouring levels, so that MGC was reduced to those:
contexts of the low- and the high-level map and one graph over both, given back to both before the high-level map is
upsampled. A middle level takes part twice, at the fusion above and below it. Other points that differ or could not be
matched:

* A2-FPN reads the backbone's channels, and its last convolution is the pyramid's lateral one. Here that convolution
  comes first (torchvision, RT-DETR), so that all convolutions are C x C and the pixel itself is the residual. As a
  module of three levels in the place of RT-DETR's projections it would add 0.95 M, Table 2's +0.9 M; the two modules
  here add 1.33 M.
* Only the paper's summary was available. Equations, number of contexts and the penalty's weight are those of the
  implementation that the FINE authors published (HyungseopLee/FINE-FPN). Its graph network mixes no nodes, and its
  attention sums over channels and entities independently. Here nodes are mixed as in graph-based reasoning (GloRe, CVPR
  2019), and the attention is the cosine of pixel and entity, or of query and context, times sqrt(C).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.sampling import feature_map, tokens
from fine_edge.fusion.top_down import TopDown

NARROWING = 4
"""The ratio of a node's channels to its channels inside the graph network."""
DEEPEST_FUSION = 4
"""The level of the low-level map at the first fusion of a pyramid that ends at stride 32."""


def contexts_of(level: int) -> int:
    """Return n_i, the number of contexts of level i, whose stride is 2^i."""
    return 64 * (6 - level)


def _direction(x: Tensor) -> Tensor:
    """Normalise (..., C) to unit vectors."""
    # Divided first, so that the sum of squares is a mean, which FP16 can hold.
    return F.normalize(x / math.sqrt(x.shape[-1]), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with one head, from (B, n, C), (B, m, C), (B, m, C_out) to (B, n, C_out)."""
    return torch.softmax(q @ k.transpose(1, 2), -1) @ v


class Collector(nn.Module):
    """The collector of Eq. 1, in which each semantic entity attends to the pixels of its direction."""

    def __init__(self, channels: int, contexts: int, out_channels: int) -> None:
        super().__init__()
        self.entities = nn.Parameter(torch.empty(contexts, channels))
        nn.init.orthogonal_(self.entities)
        self.value = nn.Linear(channels, out_channels, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, N, C) to contexts (B, n, C_out)."""
        scale = math.sqrt(self.entities.shape[1])
        entities = (_direction(self.entities) * scale).expand(pixels.shape[0], -1, -1)
        return _attend(entities, _direction(pixels), self.value(pixels))

    def orthogonality(self) -> Tensor:
        """Compute Eq. 2, the squared distance of the entities' Gram matrix from identity; a trainer adds 1e-4 of it."""
        gram = self.entities @ self.entities.T
        return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


class GraphReasoning(nn.Module):
    """Eq. 4 and 5, one step of graph convolution over a fixed number of nodes, narrow inside, with a residual."""

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(channels, channels // NARROWING)
        self.mix = nn.Linear(nodes, nodes)  # the learned adjacency
        self.widen = nn.Linear(channels // NARROWING, channels)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map nodes (B, n, C) to (B, n, C)."""
        x = F.relu(self.narrow(nodes))
        x = F.relu(x - self.mix(x.transpose(1, 2)).transpose(1, 2))
        return nodes + self.widen(x)  # type: ignore[no-any-return]


class Distributor(nn.Module):
    """The distributor of Eq. 6, in which each pixel attends to the contexts of all levels."""

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, context_channels, bias=False)
        self.project = nn.Linear(context_channels, channels, bias=False)

    def forward(self, pixels: Tensor, contexts: Tensor) -> Tensor:
        """Map pixels (B, N, C) and contexts (B, n, C_context) to (B, N, C)."""
        query = _direction(self.query(pixels)) * math.sqrt(contexts.shape[-1])
        return pixels + self.project(_attend(query, _direction(contexts), contexts))  # type: ignore[no-any-return]


class Mgc(TopDown):
    """The multi-level global context of two neighbouring levels.

    Args:
        channels: number of channels of the low-level map and of the contexts; a multiple of 4.
        high_channels: number of channels of the high-level map.
        level: level of the low-level map, at most 4; its stride is 2^level.
    """

    def __init__(self, channels: int = 256, high_channels: int = 256, level: int = 4) -> None:
        super().__init__()
        if level > DEEPEST_FUSION or channels % NARROWING:
            raise ConfigError(
                f"level {level} of {channels} channels: needs a level of at most {DEEPEST_FUSION} and channels that"
                f" {NARROWING} divides",
                where="Mgc",
            )
        low, high = contexts_of(level), contexts_of(level + 1)
        self.collect_low = Collector(channels, low, channels)
        self.collect_high = Collector(high_channels, high, channels)
        self.reason_low = GraphReasoning(low, channels)
        self.reason_high = GraphReasoning(high, channels)
        self.reason = GraphReasoning(low + high, channels)
        self.distribute_low = Distributor(channels, channels)
        self.distribute_high = Distributor(high_channels, channels)

    def contexts(self, low: Tensor, high: Tensor) -> Tensor:
        """Map pixels (B, N_low, C), (B, N_high, C_high) to contexts (B, n_low + n_high, C), the low level's first."""
        of_low = self.reason_low(self.collect_low(low))
        of_high = self.reason_high(self.collect_high(high))
        return self.reason(torch.cat([of_low, of_high], 1))  # type: ignore[no-any-return]

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and (B, C_high, h, w) to both with their contexts, at the low-level size."""
        low_pixels, high_pixels = tokens(low), tokens(high)
        contexts = self.contexts(low_pixels, high_pixels)
        refined = feature_map(self.distribute_low(low_pixels, contexts), *low.shape[-2:])
        refined_high = feature_map(self.distribute_high(high_pixels, contexts), *high.shape[-2:])
        return refined, F.interpolate(refined_high, size=low.shape[-2:], mode="nearest")
