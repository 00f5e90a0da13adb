"""Options beside what is named on a command line: those of a model say nothing of a file, and numbers are of a kind."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_detector import write_detector

from fine_edge.cli import (
    bench,
    board,
    deploy,
    estimate,
    evaluate,
    export,
    graph,
    parity,
    predict,
    quantize,
    stream,
    train,
)
from fine_edge.cli.target import Target
from fine_edge.errors import ConfigError

FILE = "engines/x.onnx"
DATA = ["--data", "d.json", "--images", "d"]


@pytest.mark.parametrize(
    ("main", "words", "option"),
    [
        (predict.main, ["a.png", "--onnx", FILE, "--weights", "w.pt"], "--weights"),
        (predict.main, ["a.png", "--model", "engines/x.engine", "--precision", "fp16"], "--precision"),
        (predict.main, ["a.png", "--onnx", FILE, "--input-size", "320"], "--input-size"),
        (stream.main, ["a.mp4", "--onnx", FILE, "--precision", "fp32"], "--precision"),
        (parity.main, [FILE, "--golden", "--precision", "fp16"], "--precision"),
        (parity.main, ["engines/x.engine", "--raw"], "--raw"),
        (deploy.main, ["triton", FILE, "--weights", "w.pt"], "--weights"),
        (quantize.main, [FILE, "--images", ".", "--weights", "w.pt", "--out", "q"], "--weights"),
        (graph.main, ["check", FILE, "--precision", "fp16"], "--precision"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_for_a_model_is_refused_beside_a_file(main, words, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    Image.new("RGB", (8, 8)).save("a.png")
    with pytest.raises(ConfigError, match=r"is a file that has its own -> ") as refused:
        main(words)
    assert refused.value.where == option


@pytest.mark.parametrize(
    ("main", "words", "option"),
    [
        (evaluate.main, ["--data", "a.json", "--detections", "b.json", "--json", "./b.json"], "--json"),
        (evaluate.main, ["compare", "a.json", "b.json", "--json", "a.json"], "--json"),
        (bench.main, ["show", "a.json", "--markdown", "t", "--csv", "t"], "--csv"),
        (graph.main, ["fp16", FILE, "--images", "a", "b", "--keep-list", "b"], "--keep-list"),
    ],
)
def test_no_result_takes_the_place_of_another_or_of_what_is_read(main, words, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        Path(name).write_text("{}")
    with pytest.raises(ConfigError, match="which is named for something else as well") as refused:
        main(words)
    assert refused.value.where == option


def test_a_board_gets_the_file_without_what_it_was_exported_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx, asked = write_detector(tmp_path / "engines"), {}
    monkeypatch.setattr(Target, "onnx_path", lambda *_, **options: asked.update(options) or onnx.relative_to(tmp_path))
    (tmp_path / "a.png").touch()
    words = ["predict", "a.png", "--model", "fcos_mobilenetv3_fine", "--prec=fp16", "--weights", "w.pt"]
    task = board.read_task([*words, "--threshold", "0.4"])
    board.COMMANDS["predict"].need(task)
    assert asked["precision"] == "fp16"
    there = task.argv_there()
    assert not [word for word in there if word in ("--prec=fp16", "--weights", "w.pt")]
    assert there[-4:] == ["--threshold", "0.4", "--model", "engines/tiny.onnx"]


@pytest.mark.parametrize(
    ("main", "words"),
    [
        *((export.main, ["rtdetr_r18", "--seed", seed]) for seed in ("-1", "1.5", "99999999999", "²")),
        (parity.main, ["rtdetr_r18", "--seed", "-1"]),
        (train.main, ["rtdetr_r18", *DATA, "--seed", "-1"]),
        (train.main, ["rtdetr_r18", *DATA, "--threads", "-3"]),
        (estimate.main, ["rtdetr_r18", "--kernels", "-1"]),
    ],
)
def test_seeds_and_counts_are_whole_numbers(main, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"argument {words[-2]}: '{words[-1]}' is no" in capsys.readouterr().err
