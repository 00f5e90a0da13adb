"""``fine-edge analyze``: both analyses of the trained detector from its files to its drawings, and wrong arguments."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import least_squares

from fine_edge.analyze.maps import look
from fine_edge.cli.analyze import main
from fine_edge.cli.program import main as program
from fine_edge.errors import FineEdgeError
from fine_edge.images import DRAWN_BY
from fine_edge.preprocess import preprocess
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import family_of
from fine_edge.zoo.load import LoadedDetector, load

CELLS = Path(__file__).parents[2] / "examples" / "blood_cells"
MODEL, WEIGHTS = "fcos_mobilenetv3_fine", CELLS / "fcos_mobilenetv3_fine.safetensors"
SIZE = ("--input-size", "64x96")


@pytest.fixture
def cells(tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    shutil.copy(CELLS / "drawn_cells.jpg", folder)
    return folder


def test_receptive_fields_from_files_to_figures(cells, tmp_path, capsys):
    out, json_file = tmp_path / "out", tmp_path / "erf.json"
    arguments = [MODEL, "--weights", f"{WEIGHTS}", "--images", f"{cells}", *SIZE, "--out", f"{out}"]
    assert program(["analyze", "erf", *arguments, "--at", "centre", "--r", "2,1", "--json", f"{json_file}"]) == 0
    found = json.loads(json_file.read_text())
    assert [(one["stage"], one["stride"]) for one in found["stages"]] == [(1, 4), (2, 8), (3, 16), (4, 32)]
    assert [(one["fusion"], one["k"], one["r"], one["own_r"]) for one in found["tokens"]] == [
        ("l=3", 1, 1, False),
        ("l=3", 1, 2, True),
        ("l=2", 2, 1, False),
        ("l=2", 2, 2, True),
    ]
    sizes = [one["sigma_px"] for one in found["stages"]]
    np.testing.assert_allclose(found["ratios"], np.divide(sizes[1:], sizes[:-1]))
    assert found["mean_ratio"] == pytest.approx(np.mean(found["ratios"]))
    assert found["stages"][-1]["touches_border"] is True  # 32 pixels a side from the middle
    assert found["images"] == 1
    assert found["made_by"]["weights"]["sha256"]
    assert sizes[1] == pytest.approx(stage_2_sigma(), rel=1e-3)
    text = capsys.readouterr().out
    assert ">= " in text
    assert "Mean ratio between adjacent stages" in text
    for name in ("stages", "tokens"):
        with Image.open(out / f"{MODEL}_erf_{name}.png") as picture:
            assert picture.width > 500


def stage_2_sigma():
    """By torch and scipy alone: stride 8 is the output of the seventh block of the backbone."""
    detector = load(find(MODEL), WEIGHTS)
    pixels = np.array(Image.open(CELLS / "drawn_cells.jpg"))
    array, _ = preprocess(pixels, 64, 96, detector.preprocessing)
    image = torch.from_numpy(array).requires_grad_(True)
    found = image
    for block in list(detector.model.backbone.body.children())[:7]:
        found = block(found)
    assert found.shape[2:] == (8, 12)
    found[0, :, 4, 6].sum().backward()
    field = image.grad[0].abs().mean(0).double().numpy()
    field /= field.max()
    v, u = np.indices(field.shape)
    start = (1, 52, 36, 10)
    error = lambda p: (p[0] * np.exp(-((u - p[1]) ** 2 + (v - p[2]) ** 2) / (2 * p[3] ** 2)) - field).ravel()  # noqa: E731
    return abs(least_squares(error, start).x[3])


def test_heatmaps_from_files_to_drawings(cells, tmp_path, capsys):
    labels, out = tmp_path / "labels.json", tmp_path / "out"
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 60, 90, 90], "area": 8100}]
    image = {"id": 1, "file_name": "drawn_cells.jpg", "width": 640, "height": 480}
    labels.write_text(json.dumps({"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "c"}]}))
    arguments = ["--weights", f"{WEIGHTS}", "--images", f"{cells}", *SIZE, "--out", f"{out}"]
    assert main(["heatmap", MODEL, *arguments, "--data", f"{labels}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["fusion"], row["map"]) for row in found["fusions"]][3:5] == [("l=3", "aligned"), ("l=2", "high")]
    assert list(found["fusions"][0]["by_size"]) == ["medium"]
    assert sorted(path.name for path in out.iterdir()) == ["00000_drawn_cells.l2.png", "00000_drawn_cells.l3.png"]
    with Image.open(out / "00000_drawn_cells.l2.png") as drawing:
        assert drawing.info["Software"] == DRAWN_BY
        assert drawing.width == 1200
    # Drawings beside the pictures are not looked at, and nothing is drawn where nothing shall be.
    shutil.copy(out / "00000_drawn_cells.l2.png", cells)
    assert main(["heatmap", MODEL, *arguments[:-1], f"{tmp_path / 'none'}", "--draw", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["fusions"]) == (1, [])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["erf", MODEL, "--at", "0.1"], "no position"),
        (["erf", MODEL, "--at", "0.1,1.0"], "no position"),
        (["erf", MODEL, "--at", "nan,0.5"], "no position"),
        (["erf", MODEL, "--r", "0,2"], "no list of sampling ratios"),
        (["erf", MODEL, "--r", "2,,4"], "no list of sampling ratios"),
        (["erf", MODEL, "--r", "9" * 5000], "no list of sampling ratios"),
        (["erf", MODEL, "--batch", "0"], "batch 0 is not positive"),
        (["erf", MODEL, "--input-size", "100"], "not a positive multiple of 32"),
        (["erf", "no_such_model"], "no model is called"),
        (["erf", MODEL, "--weights", f"{WEIGHTS}", "--device", "abacus"], "cannot be used"),
        (["erf", MODEL, "--weights", f"{WEIGHTS}"], "the folder holds no image"),
        (["heatmap", MODEL, "--draw", "-1"], "no number of pictures"),
        (["heatmap", MODEL, "--data", "missing.json"], "no such"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(FineEdgeError, match=words) as caught:
        main([*arguments, "--images", "in"])
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fusions"),
    [("rtdetr_r18_fine", ["l=3", "l=2"]), ("yolov8s_fine", ["l=3", "l=2"]), ("semantic_fpn_r50", [])],
)
def test_every_family_shows_its_stages_and_fusions(name, fusions):
    entry = find(name)
    family = family_of(entry.family)
    with torch.no_grad():
        model = family.build(entry, 4, identity=False)
        detector = LoadedDetector(entry, family, model, (), {}, None, entry.detector.preprocessing)
        seen = look(detector, torch.zeros(1, 3, 64, 96))
    assert [(one.stage, one.stride, *one.map.shape[2:]) for one in seen.stages] == [
        (stage, 2 ** (stage + 1), 64 >> (stage + 1), 96 >> (stage + 1)) for stage in (1, 2, 3, 4)
    ]
    assert [one.name for one in seen.fusions] == fusions
    for one in seen.fusions:
        assert one.low_tokens(2).shape[2:] == one.high_tokens().shape[2:] == (2, 3)
        assert one.modulation().shape == one.low.shape == one.aligned.shape
    assert not any(module._forward_hooks for module in model.modules())
