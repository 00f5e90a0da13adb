"""The catalogue: which models there are, what their names say, and what is said to a wrong one."""

import re

import pytest

from fine_edge.errors import UnknownModelError
from fine_edge.zoo.catalog import CATALOG, DETECTORS, find
from fine_edge.zoo.labels import COCO_LABELS

# Detector, the paper's name of its fusion, side or sides of its input; * for those with the rivals of Table 2.
# All are the paper's but fcos_mobilenetv3, which is there to be trained on a CPU.
NECKS = """
rtdetr_r18*      H-Enc 640x640
rtdetr_r50       H-Enc 640x640
yolov5s          PAFPN 640x640
yolov6s          PAFPN 640x640
yolov8s          PAFPN 640x640
yolov10s         PAFPN 640x640
yolov12s         PAFPN 640x640
fasterrcnn_r50*  FPN   800x800
retinanet_r50    FPN   800x800
fcos_r50         FPN   800x800
fcos_mobilenetv3 FPN   320x320
maskrcnn_r50     FPN   800x800
semantic_fpn_r50 FPN   512x1024
panoptic_fpn_r50 FPN   640x640
"""
RIVALS = {"sni": "SNI", "fapn": "FaPN", "adafpn": "AdaFPN", "mgc": "A²-FPN MGC"}
STRATEGIES = ("vanilla", "window", "area", "linear")


def lines():
    return [line.split() for line in NECKS.split("\n") if line]


def test_the_catalogue_has_every_detector_with_and_without_fine_and_the_rivals_of_table_2():
    expected = []
    for name, *_ in lines():
        detector = name.removesuffix("*")
        expected += [detector, f"{detector}_fine"]
        expected += [f"{detector}_{rival}" for rival in RIVALS if name.endswith("*")]
    expected += [f"rtdetr_r18_fine_{strategy}" for strategy in STRATEGIES]
    assert sorted(CATALOG) == sorted(expected)
    assert all(name == entry.name for name, entry in CATALOG.items())


def test_a_detector_is_what_the_paper_calls_it():
    found = [(d.name, d.neck, f"{d.input_hw[0]}x{d.input_hw[1]}") for d in DETECTORS]
    assert found == [(name.removesuffix("*"), neck, size) for name, neck, size in lines()]
    assert {d.name: d.task for d in DETECTORS if d.task != "detection"} == {
        "maskrcnn_r50": "instance",
        "semantic_fpn_r50": "semantic",
        "panoptic_fpn_r50": "panoptic",
    }


def test_fusion_and_attention_are_what_the_name_says():
    for name, entry in CATALOG.items():
        rest = name.removeprefix(entry.detector.name)
        neck = entry.detector.neck
        if rest == "":
            assert (entry.fusion, entry.attention, entry.complexity) == (neck, None, "-")
        elif rest.startswith("_fine"):
            attention = rest.removeprefix("_fine").removeprefix("_") or "aats"
            assert (entry.fusion, entry.attention) == (f"{neck} + FINE", attention)
            assert entry.complexity.startswith("O(")
        else:
            assert (entry.fusion, entry.attention) == (f"{neck} + {RIVALS[rest[1:]]}", None)


@pytest.mark.parametrize("detector", [detector.name for detector in DETECTORS])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_detector_takes_every_strategy_by_name(detector, strategy):
    entry = find(f"{detector}_fine_{strategy}")
    assert (entry.detector.name, entry.method, entry.attention) == (detector, "fine", strategy)


@pytest.mark.parametrize("name", ["rtdetr_r18_fine_aats", "rtdetr_r18_sni_window", "rtdetr_r18_fine_", "_fine_window"])
def test_a_strategy_needs_fine_and_a_detector(name):
    with pytest.raises(UnknownModelError):
        find(name)


def test_paper_figures_are_those_at_the_detectors_own_size():
    assert CATALOG["rtdetr_r18"].paper.table == "3"
    assert CATALOG["rtdetr_r50"].paper.table == "1"
    assert CATALOG["yolov8s"].paper.flops_g == 28.6
    assert CATALOG["yolov5s"].paper is None  # Table 8 alone, at 800x800
    assert find("fcos_r50_fine_window").paper is None


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("rtdetr_r81", "rtdetr_r18"), ("rtdetr-r50", "rtdetr_r50"), ("rtdetr_r18_fine_windw", "rtdetr_r18_fine_window")],
)
def test_an_unknown_model_names_the_nearest(typed, nearest):
    with pytest.raises(UnknownModelError) as caught:
        find(typed)
    assert re.search(rf"no model is called '{typed}' -> nearest: {nearest}\b", str(caught.value))


def test_a_name_like_nothing_lists_them_all():
    with pytest.raises(UnknownModelError, match=", ".join(CATALOG)):
        find("zzz")


def test_coco_has_80_classes_in_the_usual_order():
    assert len(COCO_LABELS) == len(set(COCO_LABELS)) == 80
    assert (COCO_LABELS[0], COCO_LABELS[2], COCO_LABELS[9], COCO_LABELS[79]) == (
        "person",
        "car",
        "traffic light",
        "toothbrush",
    )
    assert all(label == label.strip() and label for label in COCO_LABELS)
