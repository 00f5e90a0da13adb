"""The command with made-up stages in real processes: failures, crashes, resume, interrupts, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from made_up_stages import SCRIPT, worker_command

from fine_edge.cli.matrix import main
from fine_edge.errors import FineEdgeError
from fine_edge.matrix.row import ABSENT, CELLS, NOT_RUN, STAGES, UNREACHED
from fine_edge.zoo.catalog import CATALOG

PATIENCE_S = 240
A, B, C = "rtdetr_r18", "yolov5s", "maskrcnn_r50"
STABLE = [
    *("model", "export", "rules", "parity_fp32", "parity_fp16"),
    *("rtx_kernels", "fused_attention", "activation_mib", "int8"),
]


@pytest.fixture
def matrix(tmp_path, capsys):
    """Runs the command on made-up stages; gives exit code, rows by model, standard output and standard error."""

    def run(behaviour, *arguments):
        file = tmp_path / "bench" / "matrix.json"
        code = main([*arguments, "--out", str(tmp_path), "--json", str(file)], worker_command(behaviour))
        data = json.loads(file.read_text())
        assert [row["model"] for row in data["rows"]] == list(CATALOG)
        printed = capsys.readouterr()
        return code, {row["model"]: row for row in data["rows"]}, printed.out, printed.err

    return run


def calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_every_model_of_the_catalogue_has_a_row_and_those_not_asked_for_say_so(matrix, tmp_path):
    code, rows, out, err = matrix({}, A, "--markdown", str(tmp_path / "m.md"))
    assert code == 0
    assert list(rows[A])[: len(STABLE) + 1] == [*STABLE, "note"]
    assert [rows[A][name] for name in CELLS] == ["ok", "ok", "ok", "ok", 141, 4, 29.6, "ok"]
    assert set(rows[A]["seconds"]) == set(STAGES)
    assert rows[A]["input_size"] == [640, 640]
    assert rows[C]["input_size"] == [800, 800]
    assert {rows[B][name] for name in CELLS} == {NOT_RUN}
    data = json.loads((tmp_path / "bench" / "matrix.json").read_text())
    assert data["complete"] is False
    assert data["not_run"] == [name for name in CATALOG if name != A]
    assert data["libraries"]["onnx"]
    assert "1 of 1 models pass." in out
    assert f"[1/1] {A}: ok" in err
    assert f"| {A} | 640x640 | ok | ok | ok | ok | 141 | 4 | 29.6 |" in (tmp_path / "m.md").read_text()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_failures_are_cells_with_reasons_and_do_not_stop_the_others(matrix, jobs):
    behaviour = {
        A: {"rules": "error", "parity_fp32": "noise"},
        B: {"export": "missing"},
        C: {"parity_fp16": "bug"},
    }
    code, rows, out, err = matrix(behaviour, A, B, C, "yolov8s", "--jobs", jobs)
    assert code == 1
    assert [rows[A][name] for name in CELLS] == ["ok", "fails: the graph is broken", "ok", "ok", 141, 4, 29.6, "ok"]
    assert rows[A]["note"] == "rules: x.onnx: the graph is broken -> export it again"
    assert rows[B]["export"] == "fails: this needs ultralytics"
    assert {rows[B][name] for name in CELLS[1:]} == {UNREACHED}
    assert rows[B]["note"] == "export: this needs ultralytics -> pip install 'fine-edge[yolo]'"
    assert rows[C]["parity_fp16"] == "fails: ValueError: nobody expected this"
    assert rows[C]["note"].startswith("parity_fp16: fine_edge/matrix/stages.py:")
    assert rows[C]["note"].endswith(": ValueError: nobody expected this")
    assert rows[C]["rtx_kernels"] == 141
    assert rows["yolov8s"]["activation_mib"] == 29.6
    assert "1 of 4 models pass; 3 fail: rtdetr_r18, yolov5s, maskrcnn_r50." in out
    assert f"{A}: rules: x.onnx" in err.replace("\n", "")
    assert "Loading" not in out


def test_a_process_that_dies_is_the_failing_cell_of_the_stage_it_was_in(matrix):
    code, rows, _, _ = matrix({A: {"parity_fp16": "kill"}, B: {"rtx": "exit"}}, A, B, C)
    assert code == 1
    killed = "fails: killed, most likely because memory ran out"
    assert [rows[A][name] for name in CELLS[:4]] == ["ok", "ok", "ok", killed]
    assert {rows[A][name] for name in CELLS[4:]} == {UNREACHED}
    assert rows[B]["rtx_kernels"] == "fails: ended with exit code 3"
    assert rows[B]["note"] == "rtx: ended with exit code 3, last words: the last words"
    assert rows[C]["rtx_kernels"] == 141


def test_a_model_that_takes_too_long_is_stopped(matrix):
    code, rows, _, _ = matrix({A: {"export": "hang"}}, A, "--timeout-s", "0.001")
    assert code == 1
    assert rows[A]["export"] == "fails: stopped after 0.001 s"
    assert {rows[A][name] for name in CELLS[1:]} == {UNREACHED}


def test_without_the_compiler_its_cell_says_so_and_nothing_fails(matrix):
    code, rows, _, err = matrix({A: {"rtx": "absent"}}, A)
    assert code == 0
    assert [rows[A][name] for name in CELLS[4:7]] == [ABSENT, UNREACHED, UNREACHED]
    assert "nothing was compiled" in err


def test_a_second_run_does_only_what_has_not_passed(matrix, tmp_path):
    matrix({B: {"rules": "error"}}, A, B)
    (tmp_path / "calls").write_text("")
    code, rows, _, err = matrix({}, A, B, C)
    assert code == 0
    assert calls(tmp_path) == [f"{model} {stage}" for model in (B, C) for stage in STAGES]
    assert rows[A]["rtx_kernels"] == rows[B]["rtx_kernels"] == 141
    assert "1 of 3 models passed already" in err
    (tmp_path / "calls").write_text("")
    _, rows, _, _ = matrix({A: {"rtx": "absent"}}, A, "--fresh")
    assert calls(tmp_path) == [f"{A} {stage}" for stage in STAGES]
    assert rows[A]["rtx_kernels"] == ABSENT
    assert rows[B]["rtx_kernels"] == 141


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rtdetr_r81"], "no model is called 'rtdetr_r81'"),
        (["--input-size", "100"], "not a positive multiple of 32"),
        (["--jobs", "0"], "--jobs: 0 jobs"),
        (["--photographs", "0"], "--photographs: 0 photographs"),
        (["--timeout-s", "-1"], "--timeout-s: -1 s"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(tmp_path, arguments, words):
    with pytest.raises(FineEdgeError, match=words) as caught:
        main([*arguments, "--out", str(tmp_path)], worker_command({}))
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def disturbed(tmp_path, what):
    """A matrix of three models that meets its end in the second one."""
    behaviour = {B: {"parity_fp32": what}}
    command = [sys.executable, str(SCRIPT), "matrix", json.dumps(behaviour), A, B, C]
    command += ["--out", str(tmp_path), "--json", str(tmp_path / "matrix.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_the_first_row_was_kept(tmp_path):
    rows = {row["model"]: row for row in json.loads((tmp_path / "matrix.json").read_text())["rows"]}
    assert rows[A]["rtx_kernels"] == 141
    assert {rows[B][name] for name in CELLS} == {NOT_RUN}
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "calls").unlink()
    assert main([A, B, C, "--out", str(tmp_path)], worker_command({})) == 0
    assert calls(tmp_path) == [f"{model} {stage}" for model in (B, C) for stage in STAGES]


def test_ctrl_c_leaves_nothing_half_written_and_the_next_run_goes_on(tmp_path):
    with disturbed(tmp_path, "interrupt") as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: no partial file was left"
    assert_the_first_row_was_kept(tmp_path)


def test_a_matrix_that_is_killed_takes_its_processes_with_it(tmp_path):
    os.mkfifo(tmp_path / "alive")
    with disturbed(tmp_path, "orphan") as process:
        with (tmp_path / "alive").open("rb") as alive:
            assert alive.read() == b""  # ends when the process of the model does
        assert process.wait(PATIENCE_S) == -9
    assert_the_first_row_was_kept(tmp_path)
