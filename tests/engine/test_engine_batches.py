"""Engines for a range of batches: their profile, built by NVIDIA's compiler, and where it is kept."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from small_graphs import attention, open_batch

from fine_edge.cli.engine import main as engine_command
from fine_edge.cli.layers import main as layers_command
from fine_edge.engine.adopt import adopt
from fine_edge.engine.build import obtain_engine
from fine_edge.engine.manifest import build_key, read_manifest
from fine_edge.engine.options import BuildOptions, batch_size, profile_of, resolved, trtexec_flags
from fine_edge.engine.plan import BuildJob
from fine_edge.engine.source import Source, engine_name
from fine_edge.engine.supervise import build
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.graph.input_size import InputSize
from fine_edge.graph.model_file import read_model

pytestmark = pytest.mark.host
SHAPES = [[1, 3, 16, 16], [2, 3, 16, 16], [8, 3, 16, 16]]
OPEN = {"name": "x", "mode": "input", "shape": [-1, 3, 16, 16], "profile": SHAPES}


def told(**changed):
    """What the shim's runtime says of a plan of the open graph."""
    tensors = [OPEN, {"name": "y", "mode": "output", "shape": [-1, 4, 1, 1]}]
    layers = json.dumps({"Layers": [], "Bindings": ["x", "y"]})
    return json.dumps({"tensors": tensors, "activation_bytes": 2**20, "layers": layers} | changed)


@pytest.mark.usefixtures("jetson")
def test_one_engine_takes_the_batches_of_its_graph(tmp_path, monkeypatch):
    monkeypatch.setenv("SHIM_ENGINE", told())
    path, out = open_batch(tmp_path / "m.fp16.onnx"), tmp_path / "out"
    engine = obtain_engine(path, BuildOptions(), out)
    manifest = read_manifest(engine.path)
    assert manifest.options.batches == (1, 8, 8)  # without an optimum, it is the largest
    assert obtain_engine(path, BuildOptions(), out).reused
    assert obtain_engine(path, BuildOptions(batches=(1, 8, 8)), out).reused
    others = [BuildOptions(batches=(1, 2, 8)), BuildOptions(input_size=InputSize(16, 16, 8)), BuildOptions()]
    keys = {build_key(manifest.onnx_sha256, one, manifest.platform, ()) for one in others}
    assert len({*keys, manifest.key}) == 4


@pytest.mark.parametrize("paired", [False, True], ids=["newest Polygraphy", "Polygraphy of a Jetson"])
def test_the_builder_gets_the_profile(tmp_path, jetson, paired):
    jetson.setenv("SHIM_ENGINE", told())
    if paired:
        shim = Path(__file__).parent / "tensorrt_shim"
        jetson.setenv("PYTHONPATH", f"{Path(sys.prefix) / 'polygraphy-device'}:{shim}")
    path, options = open_batch(tmp_path / "m.fp16.onnx"), BuildOptions(batches=(1, 2, 8))
    outcome = build(BuildJob(path, options, profile=profile_of(read_model(path), (1, 2, 8))))
    assert outcome.report["polygraphy"].startswith("0.49.14" if paired else "0.53.")
    assert "(min=(1, 3, 16, 16), opt=(2, 3, 16, 16), max=(8, 3, 16, 16))" in outcome.log.replace("[", "(").replace(
        "]", ")"
    )


def test_the_builder_is_told_of_the_profile(tmp_path, capsys):
    path, out = open_batch(tmp_path / "m.fp16.onnx"), ["--artifacts", str(tmp_path / "out")]
    build = ["build", str(path), "--target", "rtx-sm86", *out]
    assert engine_command([*build, "--batch", "1:2:8"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"batch: smallest, optimum, largest +1, 2, 8", said)
    assert "--minShapes=x:1x3x16x16 --optShapes=x:2x3x16x16 --maxShapes=x:8x3x16x16" in " ".join(said.split())
    (tmp_path / "m.json").write_text('{"model": "m", "build": {"batches": [1, 2, 4]}}')
    assert engine_command([*build, "--batch", "4", "--recipes", str(tmp_path), "--json"]) == 0
    found = read_manifest(tmp_path / "out" / "m.4x16x16.fp16.rtx-sm86.engine")
    assert (found.options.batches, found.options.input_size) == (None, InputSize(16, 16, 4))
    # The engine of the range is still there.
    assert read_manifest(tmp_path / "out" / "m.batch1-2-8.fp16.rtx-sm86.engine").options.batches == (1, 2, 8)


@pytest.mark.parametrize(
    ("stem", "options", "name"),
    [
        ("m", BuildOptions(), "m.fp16.engine"),
        ("m", BuildOptions(batches=(1, 8, 8)), "m.batch1-8.fp16.engine"),
        ("m.batch1-8", BuildOptions(batches=(1, 8, 8)), "m.batch1-8.fp16.engine"),
        ("m.batch1-8", BuildOptions(batches=(1, 4, 4)), "m.batch1-8.batch1-4.fp16.engine"),
        ("m", BuildOptions(batches=(1, 2, 8), input_size=InputSize(480, 640)), "m.batch1-2-8.480x640.fp16.engine"),
        ("m", BuildOptions(input_size=InputSize(480, 640, 2)), "m.2x480x640.fp16.engine"),
    ],
)
def test_each_choice_of_batches_and_size_has_a_name_of_its_own(stem, options, name):
    assert engine_name(Source(Path(f"{stem}.fp16.onnx"), "", "m", True, None), options) == name


def test_a_graph_of_others_whose_size_is_open_gets_both(tmp_path, capsys):
    path = open_batch(tmp_path / "m.fp16.onnx", most=None)
    with pytest.raises(ArtifactError, match="is dynamic"):
        engine_command(["build", str(path), "--target", "rtx-sm86", "--artifacts", str(tmp_path)])
    for arguments in (["--batch", "1:3"], ["--batch", "1:3", "--input-size", "16"]):
        assert (
            engine_command(["build", str(path), "--target", "rtx-sm86", "--artifacts", str(tmp_path), *arguments]) == 0
        )
    assert "1, 3, 3" in capsys.readouterr().out


def test_kernels_and_parts_are_those_of_the_optimum(tmp_path, capsys):
    path = open_batch(tmp_path / "m.fp16.onnx")
    assert engine_command(["inspect", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["inputs"] == "x 8x3x16x16"
    assert "compiled for 8, its optimum" in " ".join(err.split())
    assert layers_command([str(path), "--batch", "2"]) == 0
    assert "x 2x3x16x16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("graph", "options", "words"),
    [
        (open_batch, BuildOptions(batches=(1, 4, 16)), "batch 1:4:16 is beyond what the graph takes, 1:8:8"),
        (open_batch, BuildOptions(input_size=InputSize(16, 16, 9)), "batch 9 is beyond"),
        (lambda path: attention(path, 16), BuildOptions(batches=(1, 2, 4)), "takes one batch: q 1x4x64x16"),
    ],
)
def test_batches_that_the_graph_does_not_take_are_refused(tmp_path, graph, options, words):
    path = graph(tmp_path / "m.fp16.onnx")
    with pytest.raises(ArtifactError, match=words):
        obtain_engine(path, BuildOptions(**(vars(options) | {"target": "rtx-sm86"})), tmp_path / "out")


@pytest.mark.parametrize("batches", [(4, 2, 8), (0, 1, 2), (1, 2, 2**17), (1, 2), "1:8"])
def test_a_profile_that_cannot_be_is_refused(batches):
    with pytest.raises(ConfigError):
        BuildOptions.from_json({"batches": batches})


@pytest.mark.usefixtures("jetson")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"profiles": 2}, "has 2 optimisation profiles"),
        ({"tensors": [OPEN | {"profile": [*SHAPES[:2], [8, 3, 32, 16]]}]}, "leaves more than the batch open"),
        ({"tensors": [OPEN | {"profile": [*SHAPES[:2], [16, 3, 16, 16]]}]}, "batch 1:2:16 is beyond"),
        ({}, None),
    ],
)
def test_a_plan_of_trtexec_says_itself_which_batches_it_takes(tmp_path, monkeypatch, changed, words):
    monkeypatch.setenv("SHIM_ENGINE", told(**changed))
    path, plan = open_batch(tmp_path / "m.fp16.onnx"), tmp_path / "p"
    plan.write_bytes(b"plan")
    if words:
        with pytest.raises(ArtifactError, match=words):
            adopt(plan, path, BuildOptions(), tmp_path / "out")
    else:
        assert adopt(plan, path, BuildOptions(), tmp_path / "out").manifest.options.batches == (1, 2, 8)


def test_a_plan_is_not_told_which_batches_it_takes(tmp_path):
    with pytest.raises(ConfigError, match="a plan says itself which batches it takes"):
        engine_command(["adopt", "p", "--onnx", str(open_batch(tmp_path / "m.fp16.onnx")), "--batch", "1:8"])


def test_a_batch_beyond_the_graphs_is_told_before_it_is_compiled(tmp_path):
    path = open_batch(tmp_path / "m.onnx")
    assert batch_size(path, 8).batch == 8
    with pytest.raises(ArtifactError, match=r"batch 9 is beyond what the graph takes, 1:8:8 -> export .* 1:9"):
        batch_size(path, 9)


def test_what_trtexec_is_told(tmp_path):
    path = open_batch(tmp_path / "m.onnx")
    assert resolved(path, BuildOptions()).batches == (1, 8, 8)
    flags = trtexec_flags(profile_of(read_model(path), (1, 4, 8)))
    assert flags == ["--minShapes=x:1x3x16x16", "--optShapes=x:4x3x16x16", "--maxShapes=x:8x3x16x16"]
