"""Studies from the file to the table: what is run, what is not run again, and the statistics. One of them trains."""

import fcntl
import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cells import write_cells
from PIL import Image
from safetensors.torch import load_file
from terminal import WIDTHS, assert_fits

from fine_edge.cli.study import main
from fine_edge.cli.train import main as train
from fine_edge.errors import DataError, FineEdgeError, OutputError
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.study import one_run
from fine_edge.study.outcome import StudyOutcome, VariantOutcome, difference, read_record, spread
from fine_edge.study.plan import StudyVariant, read_plan
from fine_edge.study.result import FIGURES, read_result, runs_of
from fine_edge.study.tables import paired_table, study_table
from fine_edge.text import printable

FCOS = "fcos_mobilenetv3"
APS = {FCOS: {"0": 40, "1": 42, "2": 41}, f"{FCOS}_fine": {"0": 42, "1": 45, "2": 44}}


@pytest.fixture
def study(tmp_path):
    """Runs the command on a study of two variants; its figures are made up."""
    return Study(tmp_path)


class Study:
    def __init__(self, folder):
        self.folder, self.out = write_cells(folder / "cells"), folder / "out"
        (self.folder / "val.json").write_text((self.folder / "train.json").read_text())
        self.figures, self.file = folder / "figures.json", self.folder / "study.toml"
        self.write()

    def write(self, seeds=(0, 1), recipe="", aps=APS):
        self.figures.write_text(json.dumps(aps))
        self.file.write_text(
            f'title = "Cells"\nbase = "plain"\nseeds = {list(seeds)}\n'
            '[data]\ntrain = "train.json"\nval = "val.json"\nimages = "images"\n'
            f'[recipe]\nepochs = 2\nbatch = 2\ninput_size = "128x160"\nap_every = 1\n{recipe}\n'
            f'[[variant]]\nname = "plain"\nmodel = "{FCOS}"\n[[variant]]\nname = "ours"\nmodel = "{FCOS}_fine"\n'
        )

    def __call__(self, *more):
        worker = (sys.executable, str(Path(__file__).with_name("made_up_runs.py")), str(self.figures))
        return main([str(self.file), "--out", str(self.out), *map(str, more)], worker)

    def calls(self):
        path = self.figures.with_name("calls")
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        self.devices = {line.split()[2] for line in lines}
        return sorted(" ".join(line.split()[:2]) for line in lines)


def test_two_seeds_have_means_and_differences_but_no_interval(study, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert study("--workers", "2", "--csv", study.folder / "table.csv") == 0  # whatever the terminal's width
    assert study.calls() == [f"{FCOS} 0", f"{FCOS} 1", f"{FCOS}_fine 0", f"{FCOS}_fine 1"]
    assert study.devices == {"3", "5"}
    shown = capsys.readouterr()
    _, plain, ours = (study.folder / "table.csv").read_text().splitlines()
    assert plain == "plain (base),2 of 2,4.56,0.69,5.00,41.0 ± 1.4,71.0 ± 1.4,20.5 ± 0.7,-,-"
    assert "43.5 ± 2.1" in ours
    assert "+2.5" in ours
    assert "Fewer than 3 seeds" in shown.out
    assert "[4/4]" in shown.err
    with Image.open(study.out / "study.png") as picture:
        assert picture.size[0] > 1000
    record = json.loads((study.out / "study.json").read_text())
    assert record["summary"][1]["ap"]["difference"] == {"mean": 2.5, "by_seed": [2.0, 3.0], "low": None, "high": None}
    for width in WIDTHS:
        assert_fits(study_table(read_record(study.out / "study.json")), width)
        assert_fits(paired_table(read_record(study.out / "study.json")), width)


def _variant(name, model, *aps):
    results = {seed: SimpleNamespace(figures={"ap": ap}) for seed, ap in enumerate(aps)}
    return VariantOutcome(StudyVariant(name, model), results, {}, ())


def test_options_of_fine_are_compared_with_the_papers_block_too_and_with_the_paper():
    variants = (
        _variant("plain", "fcos_mobilenetv3", 29.8, 39.9, 36.6),
        _variant("ours", "fcos_mobilenetv3_fine", 41.2, 42.8, 41.6),
        _variant("max", "fcos_mobilenetv3_fine_downmax", 39.4, 41.4, 42.2),
        _variant("direct", "fcos_mobilenetv3_fine_moddirect", 40.8, 42.8),
    )
    table = paired_table(StudyOutcome("made up", (0, 1, 2), variants))
    assert table.rows == [
        ["ours", "plain", "+11.4", "+2.9", "+5.0", "3", "+6.4", "-4.6 to +17.4", "+0.6 AP", "Table 1, fcos_r50"],
        ["max", "plain", "+9.6", "+1.5", "+5.6", "3", "+5.6", "-4.5 to +15.6", "-", "-"],
        ["max", "ours", "-1.8", "-1.4", "+0.6", "3", "-0.9", "-4.1 to +2.3", "+0.0 AP", "Table 6, fasterrcnn_r50"],
        ["direct", "plain", "+11.0", "+2.9", "-", "2", "+6.9", "-", "-", "-"],
        ["direct", "ours", "-0.4", "+0.0", "-", "2", "-0.2", "-", "-0.2 AP_s", "Fig. 7, rtdetr_r18"],
    ]
    assert "holds 0" in " ".join(table.brief)
    for width in WIDTHS:
        assert_fits(table, width)


def test_what_is_there_is_not_run_again(study, capsys):
    study.write(seeds=(0,))
    assert study("--shard", "2/2") == 0
    assert study.calls() == [f"{FCOS}_fine 0"]
    assert "1 of 2 runs are not there yet" in capsys.readouterr().out
    (study.out / "study.json").unlink()
    assert study("--no-run") == 0
    assert study.calls() == []
    assert "1 of 2 runs are not there yet" in capsys.readouterr().out
    assert not (study.out / "study.json").exists()
    assert study("--shard", "1/2") == 0
    assert study.calls() == [f"{FCOS} 0"]
    table = capsys.readouterr().out
    study.write(seeds=(0,), aps={})  # a third run would fail
    assert study() == 0
    assert main(["--show", str(study.out / "study.json"), "--explain"]) == 0
    again = capsys.readouterr().out
    assert table in again
    assert "Student's 95 %" in again
    study.write(seeds=(0,), recipe="learning_rate = 0.01")
    assert study() == 0
    assert study.calls() == [f"{FCOS} 0", f"{FCOS}_fine 0"], "another recipe, other runs"
    Image.new("RGB", (160, 128)).save(study.folder / "images" / "0.png")
    assert study("--shard", "1/2") == 0
    assert study.calls() == [f"{FCOS} 0"], "other pictures, other runs"


def test_a_run_that_fails_stands_in_its_row_and_the_others_go_on(study, capsys):
    aps = {FCOS: {"0": 40, "1": "the loss is nan\x1b[2J"}, f"{FCOS}_fine": {"0": 42}}
    study.write(aps=aps)
    assert study() == 1
    shown = capsys.readouterr()
    assert "FAILED: plain, seed 1: the loss is nan" in shown.out
    assert "FAILED: ours, seed 1: ended with exit code 2" in shown.out
    assert "\x1b" not in shown.out + shown.err
    study.calls()
    study.write()
    assert study() == 0
    assert study.calls() == [f"{FCOS} 1", f"{FCOS}_fine 1"]
    study.write(seeds=(5,), aps={FCOS: {}, f"{FCOS}_fine": {}})
    assert study() == 1, "a study without a result is no success"


def test_a_result_of_nothing_is_refused(tmp_path):
    """Its key is the hash of what it says that it was made from, which is nothing."""
    figures = dict.fromkeys(FIGURES)
    counts = {"seed": 0, "params": 1, "flops": 1, "seconds": 1}
    result = {"key": sha256(b"{}").hexdigest(), "model": FCOS, "convention": "", "losses": [], "figures": figures}
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"format": 1, **result, **counts}))
    with pytest.raises(DataError, match=r"r\.json: the result of a run is broken \(expected object, got null"):
        read_result(path)


def test_an_interrupted_study_leaves_no_process(study):
    study.write(aps={FCOS: {"0": "interrupt"}, f"{FCOS}_fine": {"0": 42}})
    with pytest.raises(KeyboardInterrupt):
        study()
    with pytest.raises(ProcessLookupError):
        os.kill(int(study.figures.with_name("pid").read_text()), 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda _text: "\x00",
        lambda text: text.replace('"ap": 40', '"ap": 1e999'),
        lambda text: text.replace('"ap": 40', '"ap": 4000'),
        lambda text: text.replace('"epochs": 2', '"epochs": 3'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"ap_s": 20.0, ', ""),
    ],
)
def test_a_damaged_result_is_made_again_and_a_damaged_record_refused(study, capsys, damage):
    study.write(seeds=(0,))
    (run, _) = runs_of(read_plan(study.file))
    worker = Path(__file__).with_name("made_up_runs.py")
    assert study("--shard", "1/2") == 0
    path = run.result_file(study.out)
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    study.calls()
    assert study("--shard", "1/2") == 0
    assert study.calls() == [f"{FCOS} 0"]
    assert "not used" in capsys.readouterr().err
    assert worker.is_file()
    record = study.out / "study.json"
    compact = json.dumps(json.loads(record.read_text()))
    record.write_text(damage(compact))
    with pytest.raises(DataError, match=r"study\.json"):
        main(["--show", str(record)])


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "give a FILE.toml, or --show RECORD"),
        (["--shard", "0/2"], "'0/2' is no part of a study"),
        (["--shard", "2"], "'2' is no part of a study"),
        (["--workers", "0"], "0 is no number of workers"),
        (["--data", "/nowhere"], "train.json"),
    ],
)
def test_wrong_options_say_so_before_anything_runs(study, argv, reason):
    with pytest.raises(FineEdgeError, match=reason):
        study(*argv) if argv else main([])
    assert not study.calls()


def test_classes_that_training_lacks_are_told_before_it(study):
    document = json.loads((study.folder / "val.json").read_text())
    document["categories"][0]["name"] = "\x1b[1mother"
    (study.folder / "val.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"has a class .*other.* that train\.json lacks") as caught:
        study()
    assert printable(str(caught.value)) == str(caught.value)


def test_statistics_by_their_definition():
    base, other = {0: 40.0, 1: 42.0, 2: 41.0, 9: 1.0}, {0: 42.0, 1: 45.0, 2: 44.0}
    found = difference(base, other)
    assert found.by_seed == {0: 2.0, 1: 3.0, 2: 3.0}
    half = 4.302653 * 0.577350 / 3**0.5  # Student's t for two degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((8 / 3, 8 / 3 - half, 8 / 3 + half), abs=1e-5)
    assert difference(base, {5: 1.0}) is None
    assert (spread([3.0]).sd, spread([])) == (None, None)
    assert spread([40.0, 42.0]).sd == pytest.approx(2**0.5)


@pytest.mark.slow
@pytest.mark.host
def test_a_real_run_is_the_training_of_the_command_and_goes_on(study, tmp_path, monkeypatch):
    """Interrupted behind its first epoch; the looks at its AP on the way change nothing of the training."""
    study.write(seeds=(0,))
    plan = read_plan(study.file)
    _, run = runs_of(plan)
    job = one_run.RunJob(
        run.key, *(plan.data.train, plan.data.val, plan.data.images, plan.data.images), tmp_path / "run",
        tmp_path / "r.json", 1, made_from=run.made_from,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is making"):
            one_run.run(job)
    see = one_run._see

    def interrupted(*given):
        see(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(one_run, "_see", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one_run.run(job)
    monkeypatch.setattr(one_run, "_see", see)
    result = one_run.run(job)
    same = ["--input-size", "128x160", "--epochs", "2", "--batch", "2", "--out", f"{tmp_path / 'alone'}"]
    assert train([f"{FCOS}_fine", "--data", f"{plan.data.train}", "--images", f"{plan.data.images}", *same]) == 0
    ours, alone = (load_file(tmp_path / name / f"{FCOS}_fine.safetensors") for name in ("run", "alone"))
    assert all(torch.equal(ours[key], alone[key]) for key in alone)
    assert [point.epoch for point in result.losses] == [1, 2]
    assert [point.epoch for point in result.curve] == [1, 2]
    assert result.figures["ap_l"] is None, "only a crowd is large"
    assert 0 <= result.figures["ap"] <= 100
    assert result.params > 4e6
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert len(read_boxes(plan.data.val).images) == 4
