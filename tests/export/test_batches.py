"""An export for a range of batches: equal to PyTorch at each, and fed with as many pictures as there are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fine_edge.cli.evaluate import main as evaluate
from fine_edge.cli.export import main as export
from fine_edge.cli.parity import main as parity
from fine_edge.cli.predict import main as predict
from fine_edge.contract import contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export.request import ExportRequest, parse_batches
from fine_edge.parity.references import against_golden, batches_tried
from fine_edge.runners.opened import open_onnx

pytestmark = pytest.mark.host

MODEL = "fcos_mobilenetv3"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    assert export([MODEL, "--input-size", "64", "--batch", "1:2:4", "--artifacts", str(folder), "--json"]) == 0
    return folder / f"{MODEL}.batch1-2-4.onnx"


@pytest.mark.slow
def test_the_contract_says_what_it_takes(exported):
    contract = read_contract(exported.with_name(f"{MODEL}.batch1-2-4.contract.json"))
    assert (contract.batches, contract.batch) == ((1, 2, 4), 4)
    assert [contract.filled(count) for count in (1, 3, 4)] == [1, 3, 4]
    fixed = contract.of_batch(2)
    assert (fixed.batches, fixed.batch, fixed.filled(1)) == (None, 2, 2)
    assert "batches" not in json.loads(fixed.to_text())


@pytest.mark.slow
def test_parity_at_the_smallest_the_optimum_three_and_the_largest(exported, capsys):
    assert parity([str(exported), "--json"]) == 0
    inputs = json.loads(capsys.readouterr().out)["inputs"]
    assert [name.split(" x ")[-1] for name in inputs] == ["1", "2", "3", "4", "uniform noise"]
    assert parity([str(exported), "--golden"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "photographs x 1, photographs x 2, photographs x 3, photographs x 4" in said
    assert "Compared at batches of 1, 2, 3, 4; it takes 1 to 4, optimum 2." in said


@pytest.mark.slow
def test_an_engine_is_compared_at_the_batches_that_it_takes(exported):
    runner = open_onnx(exported, rounded=False).runner
    contract = read_contract(contract_path(exported))
    for taken, batches in ((contract.of_batches((2, 4, 4)), (2, 3, 4)), (contract.of_batch(2), (2,))):
        assert batches_tried(taken) == batches
        report = against_golden(exported, runner, contract=taken)
        assert report.ok
        assert len(report.inputs) == 2 * len(batches)
    with pytest.raises(ArtifactError, match="holds 4 pictures, a batch of 5"):
        against_golden(exported, runner, contract=contract.of_batch(5))


@pytest.mark.slow
def test_commands_feed_as_many_pictures_as_there_are(exported, tmp_path, monkeypatch, capsys):
    from fine_edge.runners.ort import OrtRunner

    fed, run = [], OrtRunner.run
    monkeypatch.setattr(
        OrtRunner, "run", lambda self, inputs: (fed.append(len(next(iter(inputs.values())))), run(self, inputs))[1]
    )
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    assert predict([str(tmp_path / "0.png"), "--onnx", str(exported), "--out", str(tmp_path / "drawn"), "--json"]) == 0
    assert fed == [1]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 30, 30]} for n in range(6)]
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in range(6)]
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}))
    fed.clear()
    argv = ["--onnx", str(exported), "--data", str(data), "--images", str(tmp_path), "--out", str(tmp_path / "e")]
    assert evaluate([*argv, "--json"]) == 0
    assert fed == [4, 2]
    capsys.readouterr()


@pytest.mark.slow
def test_one_file_gives_the_same_at_every_batch(exported):
    opened = open_onnx(exported, rounded=False)
    images = np.random.default_rng(1).random((4, 3, 64, 64), dtype=np.float32)
    together = opened.runner.run({"images": images})
    for place in range(4):
        alone = opened.runner.run({"images": images[place : place + 1]})
        np.testing.assert_allclose(alone["scores"][0], together["scores"][place], atol=1e-5)


def test_ranges():
    assert parse_batches("3") == (3, None)
    assert parse_batches("1:8") == (8, (1, 8, 8))
    assert parse_batches("2:4:8") == (8, (2, 4, 8))
    assert ExportRequest(MODEL, batch=8, batches=(1, 8, 8)).stem() == f"{MODEL}.batch1-8"
    assert ExportRequest(MODEL, batch=8, batches=(1, 4, 8)).stem() == f"{MODEL}.batch1-4-8"
    for text in ("", "1:", "a", "1:2:3:4", "-1", "1:99999"):
        with pytest.raises(ConfigError, match="is not understood"):
            parse_batches(text)
    for batches in ((4, 4, 2), (0, 1, 2), (1, 3, 2)):
        with pytest.raises(ConfigError, match="do not rise"):
            ExportRequest(MODEL, batch=batches[2], batches=batches)
