"""Variants of FINE for ``estimate sweep``: the blocks that they change, and one of them as a graph."""

import onnx
import pytest
from torch import nn

from fine_edge.estimate import variants
from fine_edge.estimate.variants import Variant, apply_variant, export_variant
from fine_edge.fusion import Fine, FineConfig
from fine_edge.zoo.rtdetr.family import RTDetr


@pytest.fixture
def detector():
    """What sweeps need of one: FINE at two levels, the deeper first, as RT-DETR has it."""
    model = nn.ModuleDict({"encoder": nn.ModuleList([Fine(FineConfig(k=1)), Fine(FineConfig(k=2))])})
    return model.eval()


def configs(model: nn.Module) -> list[FineConfig]:
    return [module.config for module in model.modules() if isinstance(module, Fine)]


def changed(model: nn.Module, axis, value) -> list[FineConfig]:
    apply_variant(model, Variant(axis, value))
    assert not any(module.training for module in model.modules())
    return configs(model)


def test_the_papers_choices_change_nothing(detector):
    before = configs(detector)
    for axis, value in variants.PAPERS.items():
        assert changed(detector, axis, value) == before


def test_sampling_kernels_by_level_and_of_both(detector):
    assert [config.k for config in changed(detector, "k", "2:4")] == [2, 4]
    assert [config.k for config in changed(detector, "k", "2")] == [2, 2]


@pytest.mark.parametrize(
    ("axis", "value", "field", "expected"),
    [("r", "4", "r", 4), ("width", "0", "ffn_ratio", 0), ("attention", "linear", "attention", "linear")],
)
def test_one_choice_alone_changes(detector, axis, value, field, expected):
    before = configs(detector)
    for old, new in zip(before, changed(detector, axis, value), strict=True):
        assert vars(new) == {**vars(old), field: expected}


class Maps(nn.Module):
    """Backbone and encoder, where a variant differs: tracing the decoder takes most of the time."""

    def __init__(self, lowered) -> None:
        super().__init__()
        self.backbone, self.encoder = lowered.backbone, lowered.encoder

    def forward(self, images):
        return tuple(self.encoder(self.backbone(images)))


@pytest.mark.slow
def test_a_variant_as_a_graph(tmp_path, monkeypatch):
    lowered = RTDetr.lowered
    monkeypatch.setattr(RTDetr, "lowered", lambda *arguments: Maps(lowered(*arguments).detector).eval())
    monkeypatch.setattr(variants, "_SIDE_PX", 128)
    path = export_variant(Variant("k", "2:1"), tmp_path)
    assert path.name == "rtdetr_r18_fine.k-2-1.fp16.onnx"
    pools = [node for node in onnx.load(path).graph.node if node.op_type == "AveragePool" and "/fine." in node.name]
    sides = {node.name.split("encoder/")[1]: onnx.helper.get_node_attr_value(node, "kernel_shape")[0] for node in pools}
    assert sides == {
        "fine.0/down_low/AveragePool": 4,
        "fine.0/down_high/AveragePool": 2,
        "fine.1/down_low/AveragePool": 2,
    }
