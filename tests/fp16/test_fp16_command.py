from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from graph_builders import model, node, save, unary, value
from onnx import TensorProto as T
from planted import GROW, SHRINK, pictures, write_planted

from fine_edge.cli.graph import main
from fine_edge.contract import bound_contract, read_contract
from fine_edge.errors import ArtifactError, ConfigError, FineEdgeError, ImageError
from fine_edge.fp16.keep_list import read_keep_list
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.view import GraphView

# A sum that FP16 cannot hold to the digit, and what is left when it is taken away again.
CANCEL = [
    node("Add", ["shrunk", "far"], ["away"], name="/detector/encoder/Add"),
    node("Sub", ["away", "far"], ["back"], name="/detector/encoder/Sub"),
]


@pytest.fixture
def images(tmp_path):
    pictures(tmp_path / "images")
    return tmp_path / "images"


def run(*arguments):
    return main(["fp16", *map(str, arguments)])


def as_json(capsys, *arguments):
    code = run(*arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def cancelling(folder):
    """A detector that loses its detections to rounding alone: no tensor is out of range."""
    path = write_planted(folder, peak=100.0, divisor=100.0, extra=CANCEL, contract=False)
    graph = onnx.load(path)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, 4000, np.float32), "far"))
    for entry in graph.graph.node:
        if entry.op_type == "MatMul" and entry.input[0] == "shrunk":
            entry.input[0] = "back"
    onnx.save(graph, path)
    return path


def test_a_planted_overflow_is_found_kept_and_parity_restored(tmp_path, images, capsys):
    onnx_path = write_planted(tmp_path / "m")
    code, found = as_json(capsys, onnx_path, "--images", images)
    assert code == 0
    (hazard,) = found["hazards"]
    assert {key: hazard[key] for key in ("tensor", "node", "keep_fp32")} == {
        "tensor": "grown",
        "node": GROW,
        "keep_fp32": True,
    }
    assert 3e5 < hazard["max_abs"] < 3.5e5
    assert found["keep_fp32"] == [GROW, SHRINK]
    assert found["kept_already"]["nodes"] == ["/detector/refine/Sigmoid"]
    shares = {row["module"]: row["drift"]["flipped_share"] for row in found["budget"]}
    assert shares["all, nothing kept"] > 0.3
    assert shares["all, as exported"] > 0.3
    assert shares["all, with the keep-list"] == 0
    assert found["parity"]["ok"] is True
    assert f"{GROW}:fp32" in found["layer_precisions"]
    assert found["images"] == ["picture0.png", "picture1.png", "picture2.png"]


def test_the_table_shows_the_same(tmp_path, images, capsys):
    path = write_planted(tmp_path / "m")
    assert run(path, "--images", images) == 0
    assert "Proposed to stay FP32: 2 nodes; --keep-list FILE writes them." in capsys.readouterr().out
    assert run(path, "--images", images, "--layer-precisions", "--explain") == 0
    out = capsys.readouterr().out
    assert "overflow: 3.255e+05 becomes infinite beyond 65504" in out
    assert f"Proposed to stay FP32 (2): {GROW}, {SHRINK}." in " ".join(out.split())
    assert "parity of 'all, with the keep-list': ok" in out
    assert "random weights" in out
    assert "ONNX Runtime" in out
    assert f"--layerPrecisions={GROW}:fp32,{SHRINK}:fp32,/detector/refine/Sigmoid:fp32\n" in out


def test_the_fp16_file_is_vouched_for_and_no_hazard_is_left(tmp_path, images, capsys):
    onnx_path = write_planted(tmp_path / "m")
    half = tmp_path / "m" / "planted.fp16.onnx"
    assert run(onnx_path, "--images", images, "--out", half, "--keep-list", tmp_path / "keep.txt") == 0
    contract, artifact = bound_contract(half)
    assert (artifact.precision, [a.file for a in contract.artifacts]) == (
        "fp16",
        ["planted.onnx", "planted.fp16.onnx"],
    )
    assert contract.made_by["options"] == {"raw": True, "keep_fp32": [GROW, SHRINK]}
    assert bound_contract(onnx_path)[1].precision == "fp32"
    assert read_keep_list(tmp_path / "keep.txt") == (GROW, SHRINK)
    view = GraphView(onnx.load(half))
    types = {n.name: view.dtype(n.output[0]) for n in view.nodes}
    assert {types[GROW], types[SHRINK], types["/detector/refine/Sigmoid"]} == {T.FLOAT}
    assert types["/detector/classes/MatMul"] == T.FLOAT16
    capsys.readouterr()
    code, again = as_json(capsys, onnx_path, "--images", images)
    assert (code, again["hazards"], again["keep_fp32"]) == (0, [], [])
    assert again["kept_already"]["by"] == "as in the FP16 file beside it"
    assert again["kept_already"]["hazards_averted"] == 1
    assert again["budget"][-1]["drift"]["flipped_share"] == 0


def test_the_fp16_file_may_go_elsewhere(tmp_path, images):
    onnx_path = write_planted(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in onnx_path.parent.iterdir()}
    assert run(onnx_path, "--images", images, "--out", tmp_path / "elsewhere" / "half.onnx") == 0
    assert [a.file for a in read_contract(tmp_path / "elsewhere" / "half.contract.json").artifacts] == ["half.onnx"]
    assert {path.name: path.read_bytes() for path in onnx_path.parent.iterdir()} == before


def test_a_keep_list_given_counts_as_kept(tmp_path, images, capsys):
    keep = tmp_path / "keep.txt"
    keep.write_text(f"{GROW}\n{SHRINK}\n")
    code, found = as_json(capsys, write_planted(tmp_path / "m"), "--images", images, "--keep-fp32", keep)
    assert (code, found["hazards"], found["keep_fp32"]) == (0, [], [])
    assert found["kept_already"]["nodes"] == [GROW, SHRINK, "/detector/refine/Sigmoid"]
    keep.write_text("/typo\n")
    with pytest.raises(ConfigError, match=r"no node named '/typo' in planted\.onnx"):
        run(write_planted(tmp_path / "m"), "--images", images, "--keep-fp32", keep)


def test_a_graph_that_loses_its_detections_all_the_same_gives_1_and_no_file(tmp_path, images, capsys):
    half = tmp_path / "half.onnx"
    code, found = as_json(capsys, cancelling(tmp_path / "m"), "--images", images, "--out", half)
    assert code == 1
    assert found["parity"]["ok"] is False
    assert found["hazards"] == []
    worst = {row["module"]: row["drift"]["score"]["max"] or 1 for row in found["budget"]}
    assert worst["encoder"] > 10 * worst["backbone"]
    assert not half.exists()
    assert run(cancelling(tmp_path / "m"), "--images", images, "--out", half) == 1
    printed = capsys.readouterr()
    assert "no open FP16 hazard" in printed.out
    assert "FAILS" in printed.out
    assert "is not written: the conversion loses detections" in printed.err


def test_a_clean_detector_gives_0_and_the_file_it_would_export(tmp_path, images, capsys):
    onnx_path = write_planted(tmp_path / "m", peak=100.0, divisor=100.0)
    half = tmp_path / "m" / "planted.fp16.onnx"
    code, found = as_json(capsys, onnx_path, "--images", images, "--out", half)
    assert (code, found["hazards"]) == (0, [])
    expected = to_fp16(onnx.load(onnx_path), keep_fp32=["/detector/refine/Sigmoid"])
    assert onnx.load(half) == expected
    assert read_contract(tmp_path / "m" / "planted.contract.json").made_by["options"] == {"raw": True}


def test_a_foreign_file_without_contract_and_without_names(tmp_path, images, capsys):
    onnx_path = write_planted(tmp_path / "m", contract=False)
    graph = onnx.load(onnx_path)
    for entry in graph.graph.node:
        entry.name = ""
    onnx.save(graph, onnx_path)
    half = tmp_path / "m" / "half.onnx"
    code, found = as_json(capsys, onnx_path, "--images", images, "--out", half)
    assert code == 0
    assert found["keep_fp32"] == ["Div:shrunk", "MatMul:grown"]
    assert {row["module"] for row in found["budget"]} == {"all, nothing kept", "all, with the keep-list"}
    assert sorted(path.name for path in half.parent.iterdir()) == ["half.onnx", "planted.onnx"]


def test_outputs_that_are_no_detections_are_observed_but_not_proved(tmp_path, images, capsys):
    path = save(unary("Relu", dims=(1, 3, 8, 8)), tmp_path / "relu.onnx")
    code, found = as_json(capsys, path, "--images", images)
    assert (code, found["hazards"], found["budget"], found["parity"]["ok"]) == (0, [], [], None)
    assert run(path, "--images", images) == 0
    assert "parity: not proved" in capsys.readouterr().out


def test_subgraphs_are_said_not_to_be_seen_and_converted(tmp_path, images, capsys):
    path = write_planted(tmp_path / "m", peak=100.0, divisor=100.0, contract=False)
    graph = onnx.load(path)
    branches = [
        model(
            [node("Mul", ["shrunk", f"{name}_factor"], [f"{name}_out"], name=f"{name}_mul")],
            [],
            [value(f"{name}_out", T.FLOAT, (1, 3))],
            {f"{name}_factor": np.float32(1)},
        ).graph
        for name in ("then", "else")
    ]
    chosen = [
        node("ReduceMean", ["features"], ["mean"], name="mean", keepdims=0),
        node("Greater", ["mean", "one"], ["bright"], name="bright"),
        node("If", ["bright"], ["chosen"], name="if", then_branch=branches[0], else_branch=branches[1]),
    ]
    nodes = list(graph.graph.node)
    for entry in nodes:
        if entry.op_type == "MatMul" and entry.input[0] == "shrunk":
            entry.input[0] = "chosen"
    place = [entry.name for entry in nodes].index(SHRINK) + 1
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes[:place], *chosen, *nodes[place:]])
    onnx.save(graph, path)
    code, found = as_json(capsys, path, "--images", images)
    assert "Not observed: 2 nodes inside If, Loop or Scan." in found["notes"]
    assert code == 0
    assert found["budget"][-1]["drift"]["flipped_share"] == 0


def test_bad_input_is_refused(tmp_path, images):
    onnx_path = write_planted(tmp_path / "m")
    half = tmp_path / "m" / "planted.fp16.onnx"
    assert run(onnx_path, "--images", images, "--out", half) == 0
    (tmp_path / "none").mkdir()
    dynamic = save(unary("Relu", dims=("N", 3, 8, 8)), tmp_path / "dynamic.onnx")
    mono = save(unary("Relu", dims=(1, 1, 8, 8)), tmp_path / "mono.onnx")
    bare = save(to_fp16(unary("Relu", dims=(1, 3, 8, 8))), tmp_path / "bare.onnx")
    cases = [
        ((half,), ArtifactError, "this file is FP16 already -> give the FP32 file: planted.onnx"),
        ((bare,), ArtifactError, "holds FP16 tensors already"),
        ((dynamic,), ArtifactError, "not one static float input"),
        ((mono,), ArtifactError, "not one static float input"),
        ((tmp_path / "none.onnx",), ArtifactError, "no such ONNX file"),
        ((onnx_path, "--out", onnx_path), ConfigError, "this is the FP32 file"),
        ((onnx_path, "--out", tmp_path / "engine"), ConfigError, "does not end in .onnx"),
        ((onnx_path, "--keep-fp32", tmp_path / "none.txt"), ConfigError, "no such file"),
    ]
    for arguments, kind, reason in cases:
        with pytest.raises(kind, match=reason):
            run(*arguments, "--images", images)
    with pytest.raises(ImageError, match="the folder holds no image"):
        run(onnx_path, "--images", tmp_path / "none")
    onnx_path.write_bytes(onnx_path.read_bytes() + b"\0")
    with pytest.raises(FineEdgeError, match=r"is not what planted\.contract\.json lists"):
        run(onnx_path, "--images", images)


def test_it_runs_without_torch_and_ends_with_one_line_on_bad_input(tmp_path, images):
    onnx_path = write_planted(tmp_path / "m")
    code = (
        "import sys\nfor name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "from fine_edge import command\nfrom fine_edge.cli.graph import main\ncommand.run(main)"
    )

    def start(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, "fp16", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    done = start(onnx_path, "--images", images, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keep_fp32"] == [GROW, SHRINK]
    onnx_path.with_name("planted.contract.json").write_text("{}")
    broken = start(onnx_path, "--images", images)
    assert (broken.returncode, broken.stdout) == (2, "")
    assert len(broken.stderr.splitlines()) == 1
