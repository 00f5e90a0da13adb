"""The lowered query selection and decoder of RT-DETR.

* ``decoder_input_proj`` is linear, so that it composes with the two-stage head and with each decoder layer's value
  projection. TensorRT computes all products of a level as one, and each leaves a table of its own: none is a slice.
* Boxes of the two-stage head are computed for the selected queries alone, class logits for the last layer alone.
* Deformable attention samples tokens: :mod:`fine_edge.lowering.token_sampling`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.contract import SamplingName
from fine_edge.lowering.layers import attend, attention, fold, linear, mlp3
from fine_edge.lowering.token_sampling import FORMS
from fine_edge.lowering.topk import largest
from fine_edge.zoo.rtdetr.encoder import Size

# A finite value whose sigmoid is exactly 1, like transformers' finfo.max, and which FP16 can hold.
INVALID_ANCHOR = 1e4
ANCHOR_EPS, ANCHOR_SIZE = 1e-2, 0.05


def make_anchors(sizes: list[Size]) -> tuple[Tensor, Tensor]:
    """Compute anchors as logits (N, 4), and which of them are valid (N, 1), in double."""
    levels = []
    for level, (height, width) in enumerate(sizes):
        y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
        side = torch.full_like(x, ANCHOR_SIZE * 2.0**level)
        levels.append(torch.stack([(x + 0.5) / width, (y + 0.5) / height, side, side], -1).reshape(-1, 4))
    anchors = torch.cat(levels)
    valid = ((anchors > ANCHOR_EPS) & (anchors < 1 - ANCHOR_EPS)).all(-1, keepdim=True)
    return torch.where(valid, torch.log(anchors / (1 - anchors)), torch.full_like(anchors, INVALID_ANCHOR)), valid


class QuerySelection(nn.Module):
    """The selection of the best queries, together with each decoder layer's value projection."""

    def __init__(self, model: Any, batch: int, sizes: list[Size]) -> None:
        super().__init__()
        self.batch, self.queries = batch, int(model.config.num_queries)
        head, self.norm = model.enc_output
        values = [layer.encoder_attn.value_proj for layer in model.decoder.layers]
        self.memory, self.values = nn.ModuleList(), nn.ModuleList()
        for project in model.decoder_input_proj:
            weight, bias = fold(*project)
            weight = weight.flatten(1)
            # enc_output's own bias comes after the mask, so that it is not included here.
            self.memory.append(linear(head.weight @ weight, head.weight @ bias))
            by_layer = (linear(v.weight @ weight, v.weight @ bias + v.bias) for v in values)
            self.values.append(nn.ModuleList(by_layer))
        anchors, valid = make_anchors(sizes)
        self.anchors = nn.Buffer(anchors.float()[None])  # (1, N, 4)
        self.valid = nn.Buffer(valid.float())  # (N, 1)
        self.head_bias = head.bias
        self.score, self.box = model.enc_score_head, model.enc_bbox_head.layers
        # The first row of each image in the memory of the whole batch.
        self.first_row = nn.Buffer(torch.arange(batch)[:, None] * len(anchors))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
        """Select queries from fused maps (B, C, H_i, W_i).

        Returns:
            Features (B, Q, C), anchors and their corrections (B, Q, 4), values by layer and level (B, H_i * W_i, C).
        """
        batch, channels = self.batch, maps[0].shape[1]
        pixels = [x.permute(0, 2, 3, 1).reshape(batch, -1, channels) for x in maps]  # (B, H_i * W_i, C)
        memory = torch.cat([level(x) for level, x in zip(self.memory, pixels, strict=True)], 1)
        values = [
            [layer(x) for layer in cast(nn.ModuleList, level)] for level, x in zip(self.values, pixels, strict=True)
        ]
        tokens = self.norm(memory * self.valid + self.head_bias)  # (B, N, C)
        _, index = largest(self.score(tokens).amax(-1), self.queries)  # (B, Q)
        if batch == 1:
            index = index.reshape(-1)
            x, anchors = tokens.index_select(1, index), self.anchors.index_select(1, index)
        else:
            rows = (index + self.first_row).reshape(-1)
            x = tokens.reshape(-1, channels).index_select(0, rows).reshape(batch, -1, channels)
            anchors = self.anchors[0].index_select(0, index.reshape(-1)).reshape(batch, -1, 4)
        return x, anchors, mlp3(self.box, x), [list(per_level) for per_level in zip(*values, strict=True)]


class DecoderLayer(nn.Module):
    """A decoder layer: self-attention, deformable cross-attention, feed-forward and the layer's box head."""

    def __init__(self, layer: Any, box: nn.ModuleList, sizes: list[Size], sampling: SamplingName) -> None:
        super().__init__()
        attn, cross = layer.self_attn, layer.encoder_attn
        self.heads, self.levels, self.points = cross.n_heads, len(sizes), cross.n_points
        self.sampled = FORMS[sampling](sizes, self.heads, self.points)
        scale = attn.head_dim**-0.5
        q, q_bias = attn.q_proj.weight * scale, attn.q_proj.bias * scale
        # k needs no bias, as softmax does not depend on it; v's goes through the attention into the output projection.
        self.qk = linear(torch.cat([q, attn.k_proj.weight]), torch.cat([q_bias, torch.zeros_like(q_bias)]))
        self.v = nn.Buffer(attn.v_proj.weight.T.contiguous())
        self.out = linear(attn.o_proj.weight, attn.o_proj.bias + attn.o_proj.weight @ attn.v_proj.bias)
        # A sample lies at xy + offset / points * wh / 2.
        self.offsets = linear(cross.sampling_offsets.weight / self.points, cross.sampling_offsets.bias / self.points)
        self.weights, self.cross_out = cross.attention_weights, cross.output_proj
        self.norm1, self.norm2 = layer.self_attn_layer_norm, layer.encoder_attn_layer_norm
        self.norm3 = layer.final_layer_norm
        self.fc1, self.fc2, self.box = layer.mlp.fc1, layer.mlp.fc2, box

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map queries and positions (B, Q, C), boxes (B, Q, 4) and values by level to queries and box deltas."""
        placed = x + position
        y = self.norm1(x + self.out(self._self_attention(x, placed)))
        # ``placed - x`` is ``position``. Written so, TensorRT adds it while it writes ``position``, without a copy.
        x = self.norm2(y + self.cross_out(self._deformable(y + (placed - x), reference, values)))
        x = self.norm3(x + self.fc2(F.relu(self.fc1(x))))
        return x, mlp3(self.box, x)

    def _self_attention(self, x: Tensor, placed: Tensor) -> Tensor:
        batch, count, channels = x.shape
        if batch > 1:
            q, k = self.qk(placed).chunk(2, -1)
            return attention(q, k, x @ self.v, self.heads)
        by_head = self.qk(placed).reshape(count, 2 * self.heads, -1).transpose(0, 1)
        q, k = by_head[: self.heads], by_head[self.heads :]
        # v is a 2-D product: TensorRT would merge a 3-D one with the box head's first layer and copy both out again.
        v = (x.reshape(count, channels) @ self.v).reshape(count, self.heads, -1).transpose(0, 1)
        return attend(q, k, v).transpose(0, 1).reshape(batch, count, channels)

    def _deformable(self, x: Tensor, reference: Tensor, values: list[Tensor]) -> Tensor:
        """Sum ``points`` weighted samples of every level around the box, for each head."""
        batch, count = x.shape[:2]
        offsets = self.offsets(x).reshape(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.weights(x).reshape(batch, count, self.heads, self.levels * self.points).softmax(-1)
        total: Tensor = self.sampled(reference, offsets, weights, values)
        return total
