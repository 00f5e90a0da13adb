from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys

import pytest
from graph_builders import attention, save, small_net, unary

from fine_edge.cli.graph import main
from fine_edge.errors import FineEdgeError
from fine_edge.graph.checks import RULES, check
from fine_edge.graph.model_file import read_model


def test_a_clean_file_says_how_many_rules_ran(tmp_path, capsys):
    assert main(["check", str(save(attention(16), tmp_path / "m.onnx"))]) == 0
    assert capsys.readouterr().out == f"clean: {len(RULES)} rules ran and found nothing\n"


def test_json_lists_the_findings_and_errors_give_1(tmp_path, capsys):
    assert main(["check", str(save(unary("Unique"), tmp_path / "m.onnx")), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert {"FE14"} <= {finding["rule"] for finding in findings}
    assert all(set(finding) == {"rule", "severity", "node", "message", "hint"} for finding in findings)


def test_warnings_alone_give_0_and_a_clean_file_an_empty_list(tmp_path, capsys):
    assert main(["check", str(save(unary("Relu", opset=16), tmp_path / "m.onnx"))]) == 0
    out = capsys.readouterr().out
    assert "FE02" in out
    assert "0 errors, 1 warnings" in out
    assert main(["check", str(save(attention(16), tmp_path / "m.onnx")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_node_names_are_shown_as_they_are(tmp_path, capsys):
    graph = unary("Unique")
    graph.graph.node[0].name = "[/bold] [red]x[0]"
    assert main(["check", str(save(graph, tmp_path / "m.onnx"))]) == 1
    assert "[/bold] [red]x[0]" in capsys.readouterr().out


def test_an_unreadable_file_is_one_line_and_2(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "fine_edge", "graph", "check", str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def _damaged(data, rng):
    """``data`` with one to four bytes changed, removed or added."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(damaged))
        kind = rng.randrange(6)
        if kind == 0:
            del damaged[place]
        elif kind == 1:
            damaged.insert(place, rng.randrange(256))
        else:
            damaged[place] ^= 1 << rng.randrange(8)
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_give_findings_or_one_line(tmp_path, seed):
    rng = random.Random(seed)
    data = [small_net().SerializeToString(), attention(16).SerializeToString()]
    path = tmp_path / "m.onnx"
    read = 0
    for _ in range(250):
        path.write_bytes(_damaged(rng.choice(data), rng))
        with contextlib.suppress(FineEdgeError):
            check(read_model(path))
            read += 1
    assert read > 20  # enough of them reach the rules
