"""A detector with the plugin's node has the maps of the native one, and files of its own.

Up to the decoder, whose tracing takes most of the time and which knows nothing of the plugin.
"""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from fine_edge.contract import bound_contract
from fine_edge.errors import ConfigError
from fine_edge.export import exporter
from fine_edge.export.plugin import OPERATOR, define_plugin, use_plugin
from fine_edge.export.request import ExportRequest
from fine_edge.export.trace import trace
from fine_edge.graph.checks import check
from fine_edge.graph.parts import Part, part_of
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost
from fine_edge.zoo.family import GraphForm, family_of
from fine_edge.zoo.load import load
from fine_edge.zoo.rtdetr.family import RTDetr

pytestmark = [pytest.mark.host, pytest.mark.slow]

MODEL, SIZE = "rtdetr_r18_fine", 160
REQUEST = ExportRequest(MODEL, height=SIZE, width=SIZE, raw=True, plugin="fine_modulate")


@pytest.fixture(scope="module")
def detector():
    return load(find(MODEL), None, 0)


class Maps(nn.Module):
    """Backbone and encoder: what the decoder reads."""

    def __init__(self, lowered) -> None:
        super().__init__()
        self.backbone, self.encoder = lowered.backbone, lowered.encoder

    def forward(self, images):
        return tuple(self.encoder(self.backbone(images)))


@pytest.fixture(scope="module")
def compared(detector):
    """The graph with the plugin, an image, and what the native detector makes of it."""
    maps = Maps(family_of("rtdetr").lowered(detector.model, GraphForm(1, SIZE, SIZE, raw=True)).detector).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in maps.encoder.fine:  # off the identity
            block.ffn_down.weight.normal_(std=0.05)
        image = torch.rand(1, 3, SIZE, SIZE)
        expected = maps(image)
    use_plugin(maps, MODEL)
    graph = trace(maps, image, ["images"], ["stride_8", "stride_16", "stride_32"])
    define_plugin(graph)
    return graph, image, expected


def plugin_nodes(graph):
    return [node for node in graph.graph.node if node.op_type == OPERATOR]


def test_the_detector_with_the_plugin_has_the_maps_of_the_native_one(compared):
    graph, image, expected = compared
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for found, native in zip(session.run(None, {"images": image.numpy()}), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(found), native, rtol=1e-3, atol=1e-3)


def test_the_node_stands_at_both_fusions(compared):
    nodes = plugin_nodes(compared[0])
    assert [helper.get_node_attr_value(node, "kernel") for node in nodes] == [2, 4]
    assert [part_of(node.name) for node in nodes] == [Part("fine", "modulation")] * 2
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in compared[0].graph.value_info}
    assert [shapes[node.output[0]] for node in nodes] == [[1, 256, 10, 10], [1, 256, 20, 20]]


def test_no_rule_of_the_graph_calls_it_an_error(compared):
    assert {finding.severity for finding in check(compared[0])} <= {"warning", "info"}


def test_files_stand_beside_those_without_the_plugin(compared, detector, monkeypatch, tmp_path):
    """What takes long is replaced by what it would give."""
    bare = onnx.ModelProto()
    bare.CopyFrom(compared[0])
    del bare.functions[:]
    lowered_for = []
    monkeypatch.setattr(exporter, "load", lambda *_: detector)
    monkeypatch.setattr(RTDetr, "lowered", lambda *_: nn.Identity())
    monkeypatch.setattr(exporter, "use_plugin", lambda _, name: lowered_for.append(name))
    monkeypatch.setattr(exporter, "trace", lambda *_: bare)
    monkeypatch.setattr(RTDetr, "count", lambda *_: Cost(1, 2, "none"))
    monkeypatch.setattr(exporter, "_golden", lambda *_: b"golden")
    path = exporter.export(REQUEST, tmp_path)
    assert lowered_for == [MODEL]
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{MODEL}.plugin.{ending}" for ending in ("onnx", "contract.json", "golden.npz")
    }
    contract, artifact = bound_contract(path)
    assert (contract.model, artifact.file) == (MODEL, f"{MODEL}.plugin.onnx")
    assert contract.made_by["options"]["plugin"] == "fine_modulate"
    assert [function.name for function in onnx.load(path).functions] == [OPERATOR]


def test_requests():
    plain, half = ExportRequest(MODEL), ExportRequest(MODEL, plugin="fine_modulate", precision="fp16")
    assert (plain.onnx_name(), half.onnx_name()) == (f"{MODEL}.onnx", f"{MODEL}.plugin.fp16.onnx")
    assert "plugin" not in plain.options()
    with pytest.raises(ConfigError, match="no plugin 'other'"):
        ExportRequest(MODEL, plugin="other")
