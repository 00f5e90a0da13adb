"""The rules on what PyTorch's exporters really write."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from fine_edge.graph.checks import check
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.rules_attention import module_path


class Block(nn.Module):
    """Attention over the tokens of a map, with static shapes; ``masked`` adds what FINE must not hold."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.query = nn.Linear(32, 32)
        self.masked = masked

    def forward(self, x):
        tokens = self.norm(x.permute(0, 2, 3, 1).reshape(1, 64, 32))
        heads = self.query(tokens).reshape(1, 64, 2, 16).transpose(1, 2)
        out = torch.softmax(heads @ tokens.reshape(1, 64, 2, 16).permute(0, 2, 3, 1) * 0.25, -1) @ heads
        if self.masked:
            out = torch.where(out > 0, out, 0.5 * out)
        return out.transpose(1, 2).reshape(1, 8, 8, 32).permute(0, 3, 1, 2)


class Net(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.neck = nn.Module()
        self.neck.fine = Block(masked)

    def forward(self, x):
        return self.neck.fine(self.stem(x))


def export(path, *, dynamo, masked):
    torch.manual_seed(0)
    example = (torch.rand(1, 3, 8, 8),)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        options = {"external_data": False, "verbose": False, "opset_version": 18} if dynamo else {"opset_version": 17}
        torch.onnx.export(Net(masked).eval(), example, path, input_names=["x"], dynamo=dynamo, **options)
    return onnx.load(path)


@pytest.mark.parametrize("dynamo", [False, True])
def test_nodes_of_fine_are_known_and_a_mask_is_found(tmp_path, dynamo):
    graph = export(tmp_path / "m.onnx", dynamo=dynamo, masked=True)
    inside = {n.op_type for n in graph.graph.node if "fine" in module_path(n)}
    assert {"MatMul", "Softmax", "LayerNormalization", "Where"} <= inside
    assert "Conv" not in inside
    assert [f.message for f in check(graph) if f.rule == "FE17" and f.severity == "error"] == [
        "Where inside FINE splits the block"
    ]


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_static_block_is_clean_in_fp16(tmp_path, dynamo):
    graph = export(tmp_path / "m.onnx", dynamo=dynamo, masked=False)
    assert {finding.rule for finding in check(graph)} == {"FE16"}  # FP32 attention
    half = to_fp16(graph)
    assert check(half) == []
    x = {"x": np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)}
    reference, result = (onnxruntime.InferenceSession(g.SerializeToString()).run(None, x)[0] for g in (graph, half))
    np.testing.assert_allclose(result, reference, atol=5e-3)
