"""A training goes on from whole checkpoints of its own alone, and ends as if it had never been interrupted."""

import json
import shutil

import pytest
import torch
from cells import arguments
from safetensors.torch import load_file

from fine_edge import command
from fine_edge.cli.train import main
from fine_edge.train import run

NAME = "fcos_mobilenetv3"


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    """Three epochs of two steps each, which leave checkpoint-4 and checkpoint-6."""
    out = tmp_path_factory.mktemp("resumed")
    assert main(arguments(NAME, cells, out, epochs=3)) == 0
    return out


@pytest.fixture
def unfinished(trained, tmp_path):
    """The same, as a kill leaves it that came right before the end."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    (out / f"{NAME}.safetensors").unlink()
    record = json.loads((out / "training.json").read_text())
    (out / "training.json").write_text(
        json.dumps({k: v for k, v in record.items() if k not in ("losses", "checkpoint")})
    )
    return out


def weights(folder):
    return load_file(folder / f"{NAME}.safetensors")


def assert_ends_the_same(cells, trained, out, begins, monkeypatch, capsys):
    """Train on; ``begins``: the checkpoint that must be gone on from."""
    taken = []
    train = run.Trainer.train

    def spied(self, resume_from_checkpoint=None):
        taken.append(resume_from_checkpoint)
        return train(self, resume_from_checkpoint=resume_from_checkpoint)

    monkeypatch.setattr(run.Trainer, "train", spied)
    capsys.readouterr()
    assert main(arguments(NAME, cells, out, epochs=3)) == 0
    assert taken == [begins and str(out / begins)]
    whole, resumed = weights(trained), weights(out)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    return " ".join(capsys.readouterr().err.split())


def test_two_checkpoints_are_kept_and_no_more(trained):
    assert sorted(path.name for path in trained.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["missing", "cut"])
def test_a_damaged_checkpoint_is_known(unfinished, name, way):
    """By its manifest, whatever was done to it."""
    record = json.loads((unfinished / "training.json").read_text())
    training = run.fingerprint(record)
    assert run.newest_whole(unfinished, training) == unfinished / "checkpoint-6"
    path = unfinished / "checkpoint-6" / name
    if way == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert run.newest_whole(unfinished, training) == unfinished / "checkpoint-4"


def test_it_falls_back_to_the_one_before(cells, trained, unfinished, monkeypatch, capsys):
    (unfinished / "checkpoint-6/optimizer.pt").unlink()
    said = assert_ends_the_same(cells, trained, unfinished, "checkpoint-4", monkeypatch, capsys)
    assert "checkpoint-6 is damaged (optimizer.pt is not what was written): not used" in said


def test_without_a_whole_one_it_begins_anew(cells, trained, unfinished, monkeypatch, capsys):
    (unfinished / "checkpoint-4/model.safetensors").write_bytes(b"")
    (unfinished / "checkpoint-6/manifest.json").unlink()
    said = assert_ends_the_same(cells, trained, unfinished, None, monkeypatch, capsys)
    assert "checkpoint-6 was not written to its end" in said
    assert "no whole checkpoint of this training: it begins anew" in said


def test_a_checkpoint_of_another_training_is_not_used(unfinished):
    shutil.copytree(unfinished / "checkpoint-6", unfinished / "checkpoint-9")
    manifest = unfinished / "checkpoint-9/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "training": "0" * 64}))
    training = run.fingerprint(json.loads((unfinished / "training.json").read_text()))
    assert run.newest_whole(unfinished, training) == unfinished / "checkpoint-6"


def test_a_full_disk_is_one_line_and_loses_nothing(cells, unfinished, monkeypatch, capsys):
    shutil.rmtree(unfinished / "checkpoint-6")

    def full(*_given):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    assert command.exit_code(main, arguments(NAME, cells, unfinished, epochs=3)) == 2
    assert capsys.readouterr().err.count("error: ") == 1
    training = run.fingerprint(json.loads((unfinished / "training.json").read_text()))
    assert run.newest_whole(unfinished, training) == unfinished / "checkpoint-4"


def test_a_loss_that_is_no_number_ends_the_training(cells, tmp_path, capsys):
    given = arguments(NAME, cells, tmp_path / "out", "--learning-rate", "1e30")
    assert command.exit_code(main, given) == 2
    assert "this training diverges" in capsys.readouterr().err
    assert not (tmp_path / "out" / f"{NAME}.safetensors").exists()
