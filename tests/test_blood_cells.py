"""The trained detector that comes with the project: it finds what is there, and loses nothing on the way to FP16."""

import json
import os
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from fine_edge.cli.evaluate import main as evaluate
from fine_edge.cli.parity import main as parity
from fine_edge.cli.predict import main as predict
from fine_edge.detections import iou
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load

pytestmark = pytest.mark.host

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "blood_cells"
MODEL = "fcos_mobilenetv3_fine"
MODELS = (MODEL.removesuffix("_fine"), MODEL)
WEIGHTS = FOLDER / f"{MODEL}.safetensors"
SUBJECT = ["--weights", str(WEIGHTS), "--input-size", "256x320"]
# Labelled pictures of real blood, where there are any: a folder with test.json and images/.
REAL = Path(os.environ.get("FINE_EDGE_BLOOD_CELLS", ROOT.parent / "shared" / "data" / "bccd"))


@pytest.fixture(scope="module")
def drawn():
    """Two drawn pictures and the boxes of their cells."""
    sys.path.insert(0, str(FOLDER))
    try:
        from draw_cells import draw_cells
    finally:
        sys.path.remove(str(FOLDER))
    return [draw_cells(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def scene(drawn, tmp_path_factory):
    """The drawn pictures as a data set."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "images").mkdir()
    boxes = []
    for number, (picture, corners) in enumerate(drawn):
        picture.save(folder / "images" / f"{number}.png")
        boxes += [
            {"image_id": number, "category_id": 1, "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])]}
            for box in corners
        ]
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(len(drawn))]
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "RBC"}]}
    (folder / "drawn.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


def evaluated(data, images, out, engines, capsys, *more):
    given = ["--model", MODEL, *SUBJECT, "--artifacts", engines, "--data", data, "--images", images, "--out", out]
    assert evaluate([*map(str, given), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_small_and_whole():
    assert WEIGHTS.stat().st_size < 20 * 2**20
    detector = load(find(MODEL), WEIGHTS)
    assert detector.labels == ("__background__", "RBC", "WBC", "Platelets")
    assert detector.report.fine == "loaded"


def test_the_study_that_it_is_from_says_how_it_came_about():
    runs = json.loads((FOLDER / "study.json").read_text())
    assert {run["model"] for run in runs} == set(MODELS)
    assert all({run["seed"] for run in runs if run["model"] == model} >= {0, 1, 2} for model in MODELS)
    recipes = [{**run["training"]["recipe"], "model": "", "seed": 0} for run in runs]
    assert all(recipe == recipes[0] for recipe in recipes), "one recipe for all"
    assert len({run["training"]["data"]["sha256"] for run in runs}) == len({run["data_sha256"] for run in runs}) == 1


@pytest.mark.parametrize(
    ("document", "names"), [("docs/FIGURES.md", ("without FINE", "with FINE")), (FOLDER / "README.md", MODELS)]
)
def test_what_the_documents_print_is_what_the_study_found(document, names):
    runs = json.loads((FOLDER / "study.json").read_text())
    text = (ROOT / document).read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| detector | AP |"))
    figures = [cell.strip().lower() for cell in header.strip("|").split("|")][1:]
    for name, model in zip(names, MODELS, strict=True):
        found = {figure: [100 * run[figure] for run in runs if run["model"] == model] for figure in figures}
        cells = [f"{mean(values):.1f} ± {stdev(values):.1f}" for values in found.values()]
        assert f"| {name} | {' | '.join(cells)} |" in text


@pytest.mark.slow("examples/**/*")
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_graph_finds_what_pytorch_finds(scene, engines, capsys, precision):
    """FP16 first: its export writes what all other tests here need."""
    images = ["--images", str(scene / "images")]
    assert parity([MODEL, *SUBJECT, *images, "--precision", precision, "--out", str(engines), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["detections"]["matched"] > 20


@pytest.mark.slow("examples/**/*")
def test_it_finds_the_cells_of_a_drawn_picture(drawn, scene, engines, tmp_path, capsys):
    pictures = [str(scene / "images" / f"{number}.png") for number in range(len(drawn))]
    arguments = ["--model", MODEL, *SUBJECT, "--artifacts", str(engines), "--out", str(tmp_path), "--json"]
    assert predict([*pictures, *arguments]) == 0
    rows = json.loads(capsys.readouterr().out)["detections"]
    for number, (_, corners) in enumerate(drawn):
        found = [row["box_xyxy_px"] for row in rows if row["image"] == f"{number}.png" and row["label"] == "RBC"]
        overlap = iou(corners, np.array(found, dtype=np.float32).reshape(-1, 4))
        assert (overlap.max(axis=1) > 0.5).mean() >= 0.75
    assert len(list(tmp_path.glob("*.png"))) == len(drawn)


@pytest.mark.slow("examples/**/*")
def test_fp16_as_a_device_rounds_it_loses_no_cell(scene, engines, tmp_path, capsys):
    where = (scene / "drawn.json", scene / "images", tmp_path, engines, capsys)
    whole, half = evaluated(*where), evaluated(*where, "--precision", "fp16", "--rounded")
    assert whole["errors"]["recall"] >= 0.75
    assert half["backend"] == "onnxruntime-cpu, FP16 rounded after every operator"
    files = [str(path) for pattern in ("*.fp32.*.json", "*.fp16-rounded.*.json") for path in tmp_path.glob(pattern)]
    assert evaluate(["drift", *files, "--max-ap-drop", "1", "--resamples", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drift"]["matched"] > 15


@pytest.mark.slow("examples/**/*")
def test_opencvs_pixels_show_the_same_cells(scene, engines, tmp_path, capsys):
    """Against the reference preprocessing: none is lost, and AP stays within a tenth of a point."""
    where = (scene / "drawn.json", scene / "images", tmp_path, engines, capsys)
    ways = [evaluated(*where, *more)["preprocessed"] for more in (["--exact-preprocessing"], [])]
    assert ways == ["exact", "fast"]
    files = [str(path) for pattern in ("*.fp32-exact.*.json", "*.fp32.*.json") for path in tmp_path.glob(pattern)]
    assert evaluate(["drift", *files, "--max-ap-drop", "0.1", "--resamples", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["drift"]
    assert found["matched"] > 15
    assert found["flipped"] == 0
    assert found["score"]["max"] < 0.02


@pytest.mark.skipif(not (REAL / "test.json").is_file(), reason="no pictures of real blood here")
def test_real_blood(engines, tmp_path, capsys):
    """A third of the test pictures, well below what the study has for all of them."""
    data = json.loads((REAL / "test.json").read_text())
    data["images"] = data["images"][::3]
    kept = {picture["id"] for picture in data["images"]}
    data["annotations"] = [box for box in data["annotations"] if box["image_id"] in kept]
    (tmp_path / "third.json").write_text(json.dumps(data))
    found = evaluated(tmp_path / "third.json", REAL / "images", tmp_path, engines, capsys)
    study = json.loads((FOLDER / "study.json").read_text())
    expected = np.mean([run["ap50"] for run in study if run["model"] == MODEL])
    assert found["ap50"] > expected - 0.1
