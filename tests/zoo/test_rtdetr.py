"""Injection: the detector stays what it was, and FINE gets exactly the two maps of each fusion."""

import copy

import pytest
import torch
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.zoo.catalog import CATALOG, find
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.inject import inject_fine
from fine_edge.zoo.rtdetr import family
from fine_edge.zoo.rtdetr.family import RTDetr
from fine_edge.zoo.rtdetr.fusion import rtdetr_fusions


@torch.no_grad()
def outputs(model, image):
    out = model(image)
    return out.logits, out.pred_boxes


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("attention", ["aats", "vanilla", "window", "area", "linear"])
def test_at_identity_the_outputs_are_the_baselines_bit_for_bit(r18, image, attention):
    model = inject_fine(copy.deepcopy(r18), attention, identity=True)
    assert len(rtdetr_fusions(model)) == 2
    assert equal(outputs(model, image), outputs(r18, image))


def test_without_identity_the_outputs_change(r18, image):
    model = inject_fine(copy.deepcopy(r18), identity=False)
    assert not equal(outputs(model, image), outputs(r18, image))


def test_the_baselines_keys_and_weights_stay(r18):
    model = inject_fine(copy.deepcopy(r18))
    mine, theirs = model.state_dict(), r18.state_dict()
    assert {key for key in mine if ".fine." not in key} == set(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert sum(t.numel() for key, t in mine.items() if ".fine." in key) == 1_055_232


def test_fine_gets_the_lateral_output_and_the_low_level_map(r18_fine, image):
    """j = 0 is l = 3 with k = 1: high is lateral_convs[j]'s output, low the map it is about to be fused with."""
    encoder, seen = r18_fine.model.encoder, {}
    hooks = [encoder.aifi[0].register_forward_pre_hook(lambda _m, x: seen.update(deepest=x[0]))]
    for j in range(2):
        hooks += [
            encoder.lateral_convs[j].register_forward_hook(lambda _m, _x, out, j=j: seen.update({("high", j): out})),
            encoder.fpn_blocks[j].fine.register_forward_hook(
                lambda _m, x, out, j=j: seen.update({("fine", j): (*x, out)})
            ),
            encoder.fpn_blocks[j].conv1.register_forward_hook(
                lambda _m, x, _out, j=j: seen.update({("fused", j): x[0]})
            ),
            r18_fine.model.encoder_input_proj[j].register_forward_hook(
                lambda _m, _x, out, j=j: seen.update({("projected", j): out})
            ),
        ]
    try:
        outputs(r18_fine, image)
    finally:
        for hook in hooks:
            hook.remove()
    assert [block.config.k for block in rtdetr_fusions(r18_fine)] == [1, 2]
    assert [block.config.r for block in rtdetr_fusions(r18_fine)] == [2, 2]
    for j in range(2):
        low, high, refined = seen["fine", j]
        assert torch.equal(high, seen["high", j])
        assert torch.equal(low, seen["projected", 1 - j])
        assert low.shape[-2:] == (2 * high.shape[-2], 2 * high.shape[-1])
        upsampled = high.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        assert torch.equal(seen["fused", j], torch.cat([upsampled, refined], dim=1))


def test_a_copy_has_its_own_fine(r18_fine, image):
    before = outputs(r18_fine, image)
    twin = copy.deepcopy(r18_fine)
    assert equal(outputs(twin, image), before)
    with torch.no_grad():
        for block in rtdetr_fusions(twin):
            block.project.bias.add_(0.5)
    changed = outputs(twin, image)
    assert not equal(changed, before)
    assert equal(outputs(r18_fine, image), before)
    for block in rtdetr_fusions(twin):
        block.reset_to_identity()
    assert equal(outputs(r18_fine, image), before)


def test_gradients_reach_every_weight_of_fine(r18_fine, image):
    model = copy.deepcopy(r18_fine)
    out = model(image)
    (out.logits.square().mean() + out.pred_boxes.square().mean()).backward()
    for block in rtdetr_fusions(model):
        for name, parameter in block.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            # The second fusion's maps reach the outputs through the top scoring queries alone, hence small numbers.
            assert name == "key.bias" or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_fusions_is_refused(r18, count):
    model = copy.deepcopy(r18)
    block = model.model.encoder.fpn_blocks[0]
    model.model.encoder.fpn_blocks = nn.ModuleList([copy.deepcopy(block) for _ in range(count)])
    with pytest.raises(ConfigError, match=f"expected 2 top-down fusions, found {count}"):
        inject_fine(model)
    assert rtdetr_fusions(model) == []


def test_a_second_fine_is_refused(r18_fine):
    with pytest.raises(ConfigError, match="a fusion method is already there"):
        inject_fine(r18_fine)
    assert len(r18_fine.model.encoder.fpn_blocks[0]._forward_pre_hooks) == 1


def test_an_unknown_variant_is_refused():
    with pytest.raises(ConfigError, match="no variant 'r34' here, known: r18, r50"):
        family.rtdetr_config("r34")


@pytest.mark.parametrize("name", [name for name in CATALOG if name.startswith("rtdetr")])
def test_every_entry_builds_what_it_names(name):
    with torch.device("meta"):
        model = RTDetr().build(find(name), 80)
    assert not model.training
    entry = find(name)
    assert len(rtdetr_fusions(model)) == {None: 0, "fapn": 3, "mgc": 1}.get(entry.method, 2)
    if entry.method == "fine":
        assert [block.config.attention for block in rtdetr_fusions(model)] == [entry.attention] * 2
    assert (model.config.num_labels, model.config.decoder_layers) == (80, 3 if "r18" in name else 6)
    assert model.config.num_queries == 300


def test_an_odd_shape_of_the_input_runs(r18_fine):
    logits, boxes = outputs(r18_fine, torch.rand(2, 3, 64, 256))
    assert logits.shape[:2] == boxes.shape[:2]
    assert torch.isfinite(logits).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_a_size_with_fewer_positions_than_queries_is_refused(r18):
    with pytest.raises(ConfigError, match="input 64x64 has 84 positions for 300 queries -> use at least 128x128"):
        RTDetr().outputs(r18, GraphForm(height=64, width=64))
