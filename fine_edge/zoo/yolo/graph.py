"""The graph of an ultralytics detector: blocks of the fewest kernels, layers by part, constant anchors in its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.yolo.library import DetectionModel, block, fuse_conv_and_bn
from fine_edge.zoo.yolo.postprocess import one_to_one, postprocess

# ultralytics' blocks in the form that needs the fewest kernels and copies, each exact in real arithmetic.
#
# A convolution whose output is cut into parts becomes one convolution for each part. Attention reads its queries, keys
# and values as tokens, with the scale already in the queries.


def plain_conv(layer: Any) -> nn.Conv2d:
    """Return the convolution of ultralytics' ``Conv`` without activation, a remaining batch norm folded in."""
    norm = getattr(layer, "bn", None)
    if not isinstance(norm, nn.BatchNorm2d):
        return layer.conv  # type: ignore[no-any-return]
    folded: nn.Conv2d = fuse_conv_and_bn(layer.conv.double(), norm.double()).float()
    return folded


def _part(conv: nn.Conv2d, rows: Tensor, scale: float = 1.0) -> nn.Conv2d:
    """Build a 1x1 convolution with some of another's output channels."""
    part = nn.Conv2d(conv.in_channels, len(rows), 1)
    assert part.bias is not None
    part.weight.copy_(conv.weight[rows] * scale)
    part.bias.zero_() if conv.bias is None else part.bias.copy_(conv.bias[rows] * scale)
    return part


def _widened(conv: nn.Conv2d, heads: int, dim: int) -> nn.Conv2d:
    """Build a 1x1 convolution with each head's channels padded with zeros to ``dim``."""
    wide = nn.Conv2d(conv.in_channels, heads * dim, 1)
    for mine, theirs in ((wide.weight, conv.weight), (wide.bias, conv.bias)):
        assert mine is not None
        assert theirs is not None
        narrow = theirs.reshape(heads, conv.out_channels // heads, -1)
        mine.copy_(nn.functional.pad(narrow, (0, 0, 0, dim - narrow.shape[1])).reshape(mine.shape))
    return wide


def _halves(layer: Any) -> list[nn.Sequential]:
    """Split a ``Conv`` whose output is cut in two into two of them."""
    conv = plain_conv(layer)
    return [nn.Sequential(_part(conv, rows), layer.act) for rows in torch.arange(conv.out_channels).chunk(2)]


class SplitC2f(nn.Module):
    """``C2f`` and similar blocks, with the halves of the first convolution computed separately."""

    def __init__(self, c2f: Any) -> None:
        super().__init__()
        self.first, self.second = _halves(c2f.cv1)
        self.m, self.cv2 = c2f.m, c2f.cv2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        maps = [self.first(x), self.second(x)]
        for layer in self.m:
            maps.append(layer(maps[-1]))
        y: Tensor = self.cv2(torch.cat(maps, 1))
        return y


class SplitPsa(nn.Module):
    """``PSA``, attention and feed-forward on one half of the channels."""

    def __init__(self, psa: Any) -> None:
        super().__init__()
        self.first, self.second = _halves(psa.cv1)
        self.attn, self.ffn, self.cv2 = psa.attn, psa.ffn, psa.cv2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        a, b = self.first(x), self.second(x)
        b = b + self.attn(b)
        b = b + self.ffn(b)
        y: Tensor = self.cv2(torch.cat((a, b), 1))
        return y


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


class TokenAttention(nn.Module):
    """``Attention`` of YOLOv10 and ``AAttn`` of YOLO12, inside ``areas`` horizontal stripes, position by convolution.

    ultralytics orders the channels of its one projection by head, each with its query, key and value.
    """

    def __init__(self, attention: Any, key_dim: int, areas: int) -> None:
        super().__init__()
        heads, head_dim = attention.num_heads, attention.head_dim
        self.heads, self.areas = heads, areas
        qkv = plain_conv(attention.qkv)
        rows = torch.arange(qkv.out_channels).reshape(heads, -1)  # (h, 2 key_dim + head_dim)
        q, k, v = (part.flatten() for part in torch.split(rows, [key_dim, key_dim, head_dim], 1))
        # Queries and keys get the width of values, as TensorRT fuses no attention of two widths.
        self.q = _widened(_part(qkv, q, key_dim**-0.5), heads, head_dim)
        self.k, self.v = _widened(_part(qkv, k), heads, head_dim), _part(qkv, v)
        self.pe, self.proj = attention.pe, attention.proj

    def _by_head(self, x: Tensor) -> Tensor:
        """Map (B, h * d, H, W) to (B * areas, h, n, d), or to (h, n, d) for one group, which saves a copy."""
        batch, channels, height, width = x.shape
        groups, dim = batch * self.areas, channels // self.heads
        x = x.permute(0, 2, 3, 1)
        if groups == 1:
            return x.reshape(height * width, self.heads, dim).transpose(0, 1)
        return x.reshape(groups, height * width // self.areas, self.heads, dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        v = self.v(x)
        attended = _attend(self._by_head(self.q(x)), self._by_head(self.k(x)), self._by_head(v))
        attended = attended.transpose(-3, -2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        y: Tensor = self.proj(attended + self.pe(v))
        return y


def _merged_kernels(layer: Any) -> nn.Sequential:
    """Merge the depthwise 7x7 and 3x3 convolutions of ``RepVGGDW`` into one."""
    large, small = plain_conv(layer.conv), plain_conv(layer.conv1)
    assert large.bias is not None
    assert small.bias is not None
    large.weight.add_(nn.functional.pad(small.weight, (2, 2, 2, 2)))
    large.bias.add_(small.bias)
    return nn.Sequential(large, layer.act)


_FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    block.C2f: SplitC2f,
    block.C3k2: SplitC2f,
    block.C2fCIB: SplitC2f,
    block.PSA: SplitPsa,
    block.Attention: lambda layer: TokenAttention(layer, layer.key_dim, 1),
    block.AAttn: lambda layer: TokenAttention(layer, layer.head_dim, layer.area),
    block.RepVGGDW: _merged_kernels,
}


def rewrite(layer: nn.Module) -> nn.Module:
    """Replace every block of a layer that has an inference form; takes the layer apart."""
    for name, child in list(layer.named_children()):
        layer.add_module(name, rewrite(child))
    form = _FORMS.get(type(layer))
    return form(layer) if form else layer


class Head(nn.Module):
    """The branches of every level, which give bins of the distances to the box's sides, and class logits."""

    def __init__(self, head: Any, *, one_to_one: bool) -> None:
        super().__init__()
        self.box, self.cls = head.cv2, head.cv3
        if one_to_one:
            self.box, self.cls = head.one2one_cv2, head.one2one_cv3

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map levels (B, C, H, W) to bins (B, 4 * R, A) and class logits (B, K, A)."""
        bins = [box(x).flatten(2) for box, x in zip(self.box, maps, strict=True)]
        logits = [cls(x).flatten(2) for cls, x in zip(self.cls, maps, strict=True)]
        return torch.cat(bins, 2), torch.cat(logits, 2)


class YoloBoxDecoder(nn.Module):
    """Bins (B, 4 * R, A) to boxes (B, 4, A) in pixels: x0, y0, x1, y1, or cx, cy, w, h.

    The mean of a side's bins and the step from four distances to a box are one linear map of the bins' probabilities.
    """

    def __init__(self, head: Any, sizes: list[tuple[int, int]], *, corners: bool) -> None:
        super().__init__()
        self.bins = int(head.reg_max)
        # The rows are the box, the columns left, top, right, bottom.
        signs = [[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        if not corners:
            signs = [[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]]
        self.mean = nn.Buffer(torch.kron(torch.tensor(signs), torch.arange(self.bins).float()))  # (4, 4 * R)
        centres, strides = [], []
        for (rows, columns), stride in zip(sizes, head.stride.tolist(), strict=True):
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            centres.append(torch.stack([x.flatten(), y.flatten()]) * stride)
            strides.append(torch.full((1, rows * columns), stride))
        centre = torch.cat(centres, 1)  # (2, A)
        self.centre = nn.Buffer(torch.cat([centre, centre if corners else torch.zeros_like(centre)]))
        self.stride = nn.Buffer(torch.cat(strides, 1))

    def forward(self, bins: Tensor) -> Tensor:
        """Decode bins (B, 4 * R, A) to boxes (B, 4, A)."""
        batch, _, anchors = bins.shape
        probabilities = bins.reshape(batch, 4, self.bins, anchors).softmax(2)
        return self.mean @ probabilities.reshape(batch, -1, anchors) * self.stride + self.centre


class YoloNetwork(nn.Module):
    """Images (B, 3, H, W) to boxes (B, 4, A) in pixels and class logits (B, K, A)."""

    def __init__(self, model: DetectionModel, form: GraphForm, *, corners: bool) -> None:
        super().__init__()
        *layers, head = model.model
        self.sources = {layer.i: layer.f for layer in layers}
        self.head_sources = tuple(head.f)
        split = len(model.yaml["backbone"])
        self.backbone = nn.ModuleDict({str(layer.i): rewrite(layer) for layer in layers[:split]})
        self.encoder = nn.ModuleDict({str(layer.i): rewrite(layer) for layer in layers[split:]})
        self.decoder = Head(head, one_to_one=one_to_one(model))
        sizes = [(form.height // int(s), form.width // int(s)) for s in head.stride.tolist()]
        self.boxes = YoloBoxDecoder(head, sizes, corners=corners)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to boxes (B, 4, A) in pixels and class logits (B, K, A)."""
        # All outputs are kept, as the neck may read any of them.
        outputs: list[Tensor] = []
        x = images
        for index, layer in [*self.backbone.items(), *self.encoder.items()]:
            source = self.sources[int(index)]
            if isinstance(source, int):
                x = layer(x if source == -1 else outputs[source])
            else:
                x = layer([x if i == -1 else outputs[i] for i in source])
            outputs.append(x)
        bins, logits = self.decoder([outputs[i] for i in self.head_sources])
        return self.boxes(bins), logits


class YoloGraph(nn.Module):
    """The module that is exported: the detector, then its postprocessing."""

    def __init__(self, model: DetectionModel, form: GraphForm) -> None:
        super().__init__()
        self.postprocess, corners = postprocess(model, form)
        self.detector = YoloNetwork(model, form, corners=corners)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) in [0, 1] to (predictions,) or (labels, boxes_xyxy, scores)."""
        outputs: tuple[Tensor, ...] = self.postprocess(*self.detector(images))
        return outputs
