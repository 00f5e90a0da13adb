"""FINE goes into a loaded ultralytics detector, which stays one of ultralytics' in all it does."""

import copy

import pytest
import torch
from yolo_models import learned_noise, yolo

from fine_edge.errors import ConfigError
from fine_edge.fine_options import FineOptions
from fine_edge.fusion import Fine
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.yolo.fusion import FusedConcat, ffn_ratio, fusions, inject
from fine_edge.zoo.yolo.library import DetectionModel, quiet

pytestmark = pytest.mark.host
NAMES = ("yolov5s", "yolov6s", "yolov8s", "yolov10s", "yolo12s")


def detector(name="yolov8s", **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return learned_noise(DetectionModel(f"{name}.yaml", verbose=False, **options)).eval()


def predictions(model, images):
    with torch.no_grad():
        return model(images)[0]


@pytest.fixture(scope="module")
def images():
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_at_identity_a_detector_is_what_it_was(name, images):
    model = detector(name)
    before, keys = predictions(model, images), set(model.state_dict())
    assert inject(model) is model
    assert torch.equal(predictions(model, images), before)
    new = set(model.state_dict()) - keys
    assert keys <= set(model.state_dict())
    assert new
    assert all(".fine." in key for key in new)
    assert not model.training


@pytest.mark.parametrize("name", NAMES)
def test_fine_refines_the_low_map_of_both_fusions_under_the_map_that_is_upsampled(name, images):
    model = inject(detector(name), MethodConfig(identity=False))
    assert [method.config.k for method in fusions(model)] == [1, 2]
    assert [method.config.head_dim for method in fusions(model)] == [16, 16]
    for layer in [layer for layer in model.model if isinstance(layer, FusedConcat)]:
        taken = []
        layer.method.register_forward_hook(lambda _m, inputs, _y, taken=taken: taken.extend(inputs))
        outputs = {}
        for source in model.model[:-1]:
            source.register_forward_hook(lambda m, _x, y, outputs=outputs: outputs.__setitem__(m.i, y))
        predictions(model, images)
        low, high = taken
        assert low is outputs[layer.f[1]]
        # What the layer in front of the concatenation upsampled.
        assert high is outputs[layer.i - 2]
        assert outputs[layer.i - 1].shape[-2:] == low.shape[-2:] == tuple(2 * side for side in high.shape[-2:])


def test_equation_10_unifies_channels_only_where_they_differ():
    widths = [(m.config.channels, m.config.high_channels) for m in fusions(inject(detector()))]
    assert widths == [(256, 512), (128, 256)]
    blocks = fusions(inject(detector("yolov5s")))
    assert [(m.config.channels, m.config.high_channels) for m in blocks] == [(256, 256), (128, 128)]
    assert all(isinstance(block.unify, torch.nn.Identity) for block in blocks)


def test_the_feed_forward_is_the_one_of_the_papers_row():
    assert [ffn_ratio(detector(name)) for name in NAMES] == [2, 2, 4, 2, 2]
    assert [m.config.ffn_ratio for m in fusions(inject(detector()))] == [4, 4]
    assert [m.config.ffn_ratio for m in fusions(inject(detector("yolov8n")))] == [2, 2]
    assert [m.config.ffn_ratio for m in fusions(yolo.build(find("yolov8s_fine"), 80))] == [4, 4]
    assert [m.config.ffn_ratio for m in fusions(inject(detector(), MethodConfig(options=FineOptions(ffn=2))))] == [2, 2]


def test_a_copy_and_a_fused_copy_compute_the_same(images):
    model = inject(detector(), MethodConfig(identity=False))
    twin, fused = copy.deepcopy(model), copy.deepcopy(model)
    with quiet():
        fused.fuse(verbose=False)
    expected = predictions(model, images)
    assert torch.equal(predictions(twin, images), expected)
    torch.testing.assert_close(predictions(fused, images), expected, rtol=1e-4, atol=1e-3)
    assert [type(method) for method in fusions(fused)] == [Fine, Fine]


def test_a_layer_says_of_itself_what_ultralytics_reads():
    model = inject(detector())
    layer = model.model[11]
    assert (layer.i, layer.f, layer.np) == (11, [-1, 6, 9], sum(p.numel() for p in layer.parameters()))
    assert layer.type.endswith("FusedConcat")
    assert {6, 9, 4, 12} <= set(model.save)


def test_a_learned_upsampling_is_kept(images):
    """YOLOv6 upsamples by a transposed convolution."""
    model = inject(detector("yolov6s"), MethodConfig(identity=False))
    before = predictions(model, images)
    with torch.no_grad():
        model.model[11].weight.mul_(2)
    assert not torch.equal(predictions(model, images), before)


def test_a_rival_changes_the_upsampled_map(images):
    """SNI scales it by a quarter; the low-level map stays."""
    model = detector()
    inject(model, MethodConfig("sni"))
    seen = []
    model.model[11].register_forward_hook(lambda _m, inputs, output: seen.append((*inputs[0], output)))
    predictions(model, images)
    upsampled, low, _high, output = seen[0]
    torch.testing.assert_close(output, torch.cat([upsampled / 4, low], 1))


def test_the_models_type_and_mode_are_kept():
    model = detector().half().train()
    inject(model)
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_gradients_of_ultralytics_own_loss_reach_fine():
    model = inject(detector(nc=3)).train()
    model.args = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "overlap_mask": True, "epochs": 1}
    from ultralytics.utils import IterableSimpleNamespace

    model.args = IterableSimpleNamespace(**model.args)
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.2, 0.3]]),
    }
    loss, _ = model(batch)
    loss.sum().backward()
    for method in fusions(model):
        assert float(method.ffn.down.weight.grad.abs().max()) > 0


def test_a_second_injection_is_refused():
    with pytest.raises(ConfigError, match="already there"):
        inject(inject(detector()))


def test_a_neck_without_two_upsampled_maps_is_refused():
    with pytest.raises(ConfigError, match="expected 2 upsampled maps in the neck, found 1"):
        inject(DetectionModel("yolov3-tiny.yaml", verbose=False))


def test_what_is_no_detector_of_ultralytics_is_refused():
    with pytest.raises(
        ConfigError, match=r"Sequential is not a detector of ultralytics -> give .*YOLO\(\.\.\.\).model"
    ):
        inject(torch.nn.Sequential())


@pytest.mark.parametrize("name", ["fapn", "adafpn", "mgc"])
def test_a_rival_in_the_place_of_layers_that_this_neck_lacks_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} replaces layers that this neck does not have"):
        inject(detector(), MethodConfig(name))
