"""The counter against fvcore itself, against closed forms of FINE, and against what the libraries publish."""

import logging
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from fine_edge.fusion import Fine, FineConfig
from fine_edge.fusion.methods import METHODS, MethodConfig, Place
from fine_edge.zoo import count as counting
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import documented_macs, macs, on_meta, params, ptflops, unfrozen
from fine_edge.zoo.rtdetr.family import RTDetr
from fine_edge.zoo.segmentation import panoptic
from fine_edge.zoo.torchvision import one_stage, two_stage
from fine_edge.zoo.yolo import family as yolo

TORCHVISION = {
    "fasterrcnn": (detection.fasterrcnn_resnet50_fpn, detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
    "maskrcnn": (detection.maskrcnn_resnet50_fpn, detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
    "retinanet": (detection.retinanet_resnet50_fpn, detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1),
    "fcos": (detection.fcos_resnet50_fpn, detection.FCOS_ResNet50_FPN_Weights.COCO_V1),
}


class Pass(nn.Module):
    """A pass of a model as a module of its own, which is what fvcore takes."""

    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, image):
        return self.run(self.model, image)


def by_fvcore(model, *inputs, run=None):
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        counted = FlopCountAnalysis(Pass(model, run) if run else model, inputs)
        return int(counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def with_frozen_norms(kind):
    """torchvision's detector as its published weights need it: 91 classes, frozen batch norms."""
    model = TORCHVISION[kind][0](weights=None, weights_backbone=None)
    extra = model.backbone.fpn.extra_blocks
    levels = (1, 2, 3, 4) if "rcnn" in kind else (2, 3, 4)
    model.backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, returned_layers=list(levels), extra_blocks=extra, trainable_layers=5
    )
    return model.eval()


def run_of(kind):
    return two_stage.forward_pass if "rcnn" in kind else one_stage.forward_pass


def test_a_two_stage_detector_counts_as_by_fvcore():
    model, image = with_frozen_norms("fasterrcnn"), torch.zeros(1, 3, 64, 96)
    # Untrained weights propose from a few boxes to a thousand, by chance, each of which goes through wide layers.
    model.rpn._post_nms_top_n["testing"] = 50
    run = two_stage.forward_pass
    assert macs(model, image, run=run) == by_fvcore(model, image, run=run)


def test_rtdetr_counts_as_by_fvcore():
    model, image = RTDetr().build(find("rtdetr_r18_fine"), 80), torch.zeros(1, 3, 128, 160)
    # transformers resizes a mask of the image to the three maps (420 pixels) and drops it; fvcore does not see that.
    expected = by_fvcore(model, image) + 420
    assert macs(model, image) == expected
    assert RTDetr().count(model, 128, 160).flops == 2 * expected


@pytest.mark.parametrize("name", ["sni", "fapn", "adafpn"])
def test_rivals_count_as_by_fvcore(name):
    block = METHODS[name].fusion(Place(64, 64, 1), MethodConfig(name)).eval()
    maps = torch.zeros(1, 64, 16, 12), torch.zeros(1, 64, 8, 6)
    assert macs(block, *maps) == by_fvcore(block, *maps)


@pytest.mark.parametrize("name", ["fapn", "mgc"])
def test_laterals_of_rivals_count_as_by_fvcore(name):
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.laterals = METHODS[name].laterals((64, 128), 64)

        def forward(self, fine, coarse):
            return self.laterals([fine, coarse])

    maps = torch.zeros(1, 64, 16, 12), torch.zeros(1, 128, 8, 6)
    assert macs(Levels().eval(), *maps) == by_fvcore(Levels().eval(), *maps)


def test_counts_by_ptflops_in_closed_form():
    """Of ptflops: a bias and a norm's two constants an element, activations and pooling as layer and as function."""
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2.0), nn.Flatten()
    ).eval()
    block.append(nn.Linear(8 * 8 * 12, 5))
    pixels, flat = 8 * 12, 8 * 8 * 12
    convolution, linear = pixels * (8 * 3 * 9 + 8), flat * 5 + 5
    assert ptflops(block, torch.zeros(1, 3, 10, 14)) == convolution + linear + flat * (2 + 2 + 2 + 1)


def test_frozen_norms_count_once_they_are_not():
    frozen = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), FrozenBatchNorm2d(8))
    image = torch.zeros(1, 3, 4, 5)
    assert macs(unfrozen(frozen), image) == macs(frozen, image) + 2 * 8 * 20
    assert params(unfrozen(frozen)) == params(frozen) + 16
    assert isinstance(frozen[1], FrozenBatchNorm2d)


def test_upsampling_and_group_norms_count_as_by_fvcore():
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.GroupNorm(4, 8),
        nn.Upsample(scale_factor=2.0, mode="bilinear"),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
        nn.Upsample(scale_factor=2.0),
        nn.AvgPool2d(2),
    ).eval()
    image = torch.zeros(1, 3, 10, 14)
    assert macs(block, image) == by_fvcore(block, image)


def closed_form(config, low, high, *, attention=True):
    """fvcore's count of a block on square maps, sides that the kernels, the window and the areas divide."""
    c, ratio = config.channels, config.ffn_ratio
    n, m = (low // config.low_kernel) ** 2, (high // config.high_kernel) ** 2
    unify = config.high_channels * c * high**2 if config.high_channels not in (None, c) else 0  # Eq. 10
    upsampled = 0 if config.low_kernel == 1 else c * low**2
    if config.attention == "window":
        m, upsampled = n, c * low**2
    products = {
        "aats": 2 * n * m * c,
        "vanilla": 2 * n * m * c,
        "window": 2 * n * config.window**2 * c,
        "area": 2 * n * m * c // config.areas,
        "linear": (n + m) * c * (c // config.num_heads),
    }[config.attention]
    projections = 2 * n * c * c + 2 * m * c * c
    norms = 5 * c * (n + m + (n if ratio else 0))
    return unify + upsampled + projections + norms + 2 * ratio * n * c * c + (products if attention else 0)


@pytest.mark.parametrize("high_channels", [None, 96])
@pytest.mark.parametrize("ffn_ratio", [0, 2, 4])
@pytest.mark.parametrize("attention", ["aats", "vanilla", "window", "area", "linear"])
def test_fine_in_closed_form(attention, ffn_ratio, high_channels):
    config = FineConfig(
        channels=64, high_channels=high_channels, attention=attention, ffn_ratio=ffn_ratio, k=2, window=7
    )
    block = Fine(config)
    maps = torch.zeros(1, 64, 56, 56), torch.zeros(1, high_channels or 64, 28, 28)
    expected = closed_form(config, 56, 28)
    assert macs(block, *maps) == by_fvcore(block, *maps) == expected
    assert macs(block, *maps, attention=False) == closed_form(config, 56, 28, attention=False)


@pytest.mark.parametrize("kind", TORCHVISION)
def test_baselines_are_what_torchvision_documents(kind):
    model, published = with_frozen_norms(kind), TORCHVISION[kind][1].meta
    assert counting.params(model) == published["num_params"]
    counted = documented_macs(model, torch.empty(1, 3, 800, 800), run=run_of(kind)) / 1e9
    assert counted == pytest.approx(published["_ops"], abs=0.01)


def test_one_stage_detectors_are_counted_as_documented_and_as_logged_and_say_so():
    model = one_stage.build("retinanet", 91)
    documented, logged = one_stage.count(model, 256, 256), one_stage.count_as_logged(model, 256, 256)
    frozen = macs(model, counting.image(256, 256), run=one_stage.forward_pass)
    assert documented.flops < frozen < logged.flops
    assert (documented.convention, logged.convention) == (one_stage.DOCUMENTED, one_stage.LOGGED)
    assert documented.params == logged.params == counting.params(model)


def test_counting_leaves_the_model_as_it_is():
    block = Fine(FineConfig(channels=32))
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    copied = on_meta(block)
    assert macs(block, torch.zeros(1, 32, 8, 8), torch.zeros(1, 32, 4, 4)) > 0
    assert {p.device.type for p in copied.parameters()} == {"meta"}
    assert all(torch.equal(before[name], tensor) for name, tensor in block.state_dict().items())
    assert all(parameter.requires_grad for parameter in block.parameters())


class Convolution(nn.Sequential):
    """Something of YOLO's stride: 32."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 32, stride=32, bias=False))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (640, 640), (800, 480)])
def test_a_yolo_counts_two_operations_a_product_and_scales_with_the_area(height, width):
    cost = yolo.count(Convolution(), height, width)
    products = 3 * 16 * 32 * 32
    assert cost == counting.Cost(products, 2 * products * height * width // 32**2, yolo.CONVENTION)


def test_a_panoptic_pass_runs_every_head():
    calls = []

    def head(name):
        return lambda x: calls.append((name, tuple(x.shape) if isinstance(x, torch.Tensor) else len(x))) or x

    def pooler(side):
        return SimpleNamespace(output_size=(side, side))

    maps = {str(i): torch.empty(1, 8, 16 >> i, 16 >> i) for i in range(5)}
    heads = SimpleNamespace(
        box_head=head("box"),
        box_predictor=head("boxes"),
        box_roi_pool=pooler(7),
        mask_head=head("mask"),
        mask_predictor=head("masks"),
        mask_roi_pool=pooler(14),
    )
    model = SimpleNamespace(
        backbone=lambda _image: maps, rpn=SimpleNamespace(head=head("rpn")), roi_heads=heads, semantic=head("semantic")
    )
    panoptic.forward_pass(model, torch.empty(1, 3, 64, 64))
    box, mask = (1000, 8, 7, 7), (100, 8, 14, 14)
    assert calls == [
        ("rpn", 5),
        ("box", box),
        ("boxes", box),
        ("mask", mask),
        ("masks", mask),
        ("semantic", 4),
    ]


@pytest.mark.parametrize(("down", "params", "products"), [("dwconv", 6_144, 2_457_600), ("max", 0, 0), ("avg", 0, 0)])
def test_table_6(down, params, products):
    assert counting.count_down(down) == counting.Cost(params, products, counting.DOWN)
