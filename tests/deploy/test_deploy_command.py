"""``fine-edge deploy``: what is refused, what is replaced, and engines."""

import json
import os
import shutil
from dataclasses import replace

import onnx
import pytest
from responsive import write_responsive
from tiny_detector import write_detector

from fine_edge.cli.deploy import main
from fine_edge.cli.engine import main as inspect
from fine_edge.contract import Artifact, Contract, TensorSpec, bound_contract, contract_path, read_contract
from fine_edge.deploy.deployable import Deployable, require_boxes
from fine_edge.engine.manifest import Manifest, manifest_path
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, ConfigError, FineEdgeError, OutputError
from fine_edge.files import sha256_of
from fine_edge.graph.identity import identity_of
from fine_edge.graph.model_file import external_tensors
from fine_edge.preprocess import Preprocessing

CAMERA = ("--camera", "640x480")
TARGETS = {"triton": (), "deepstream": (), "isaac-ros": CAMERA, "cpp": ()}


def change_contract(path, **changes) -> Contract:
    changed = replace(read_contract(contract_path(path)), **changes)
    contract_path(path).write_text(changed.to_text(), encoding="utf-8")
    return changed


def rows(labels):
    shapes = {"labels": (labels, (1, 3)), "boxes_xyxy": ("float32", (1, 3, 4)), "scores": ("float32", (1, 3))}
    return tuple(TensorSpec(name, dtype, shape, "") for name, (dtype, shape) in shapes.items())


def write_engine(folder, **changes):
    """An engine of the tiny detector that nothing deserialises, its manifest and contract beside it."""
    onnx = write_detector(folder)
    engine = folder / "tiny.fp16.engine"
    engine.write_bytes(b"plan" * 16)
    manifest = Manifest(
        model="tiny",
        onnx_file=onnx.name,
        onnx_sha256=sha256_of(onnx),
        engine_sha256=sha256_of(engine),
        options=BuildOptions(),
        platform=Platform(tensorrt="10.7.0", l4t="36.4.0", gpu="Orin", sm=87),
        plugins_sha256=(),
        workspace_mib=None,
        power_mode=None,
        timing_cache_sha256=None,
        kernels=7,
        fused_attention=1,
        activation_mib=3.5,
        weights_mib=None,
        build_s=1.0,
        built_at="2026-01-01T00:00:00+00:00",
        built_by="fine_edge",
        versions={},
    )
    manifest_path(engine).write_text(replace(manifest, **changes).to_text())
    return engine


@pytest.mark.parametrize("target", TARGETS)
def test_json_lists_every_file_with_its_hash(tmp_path, target, capsys):
    path = write_responsive(tmp_path, Preprocessing())
    assert main([target, str(path), "--out", str(tmp_path / "out"), *TARGETS[target], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out" / "tiny"
    assert printed["folder"] == str(folder)
    assert (printed["target"], printed["source_sha256"]) == (target, sha256_of(path))
    assert printed["random_weights"] is True
    there = {file.relative_to(folder).as_posix(): sha256_of(file) for file in folder.rglob("*") if file.is_file()}
    listing = there.pop("deploy.json")
    assert {file["path"]: file["sha256"] for file in printed["files"]} == there
    assert listing
    settings = json.loads((folder / "deploy.json").read_text())["settings"]
    assert settings["labels"] == ["cat", "dog", "[owl]"]


@pytest.mark.parametrize("target", ["triton", "cpp"])
def test_an_engine_goes_where_engines_are_loaded(tmp_path, target, capsys):
    engine = write_engine(tmp_path)
    assert main([target, str(engine), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out" / "tiny"
    assert (printed["precision"], printed["source_sha256"]) == ("fp16", sha256_of(engine))
    model = folder / ("1/model.plan" if target == "triton" else "tiny.engine")
    assert model.read_bytes() == engine.read_bytes()
    if target == "triton":
        assert 'platform: "tensorrt_plan"' in (folder / "config.pbtxt").read_text()
        assert "tensorrt 10.7.0, l4t 36.4.0, gpu Orin, sm 87" in (folder / "README.md").read_text()


@pytest.mark.host
@pytest.mark.parametrize("target", ["deepstream", "isaac-ros"])
def test_nvidias_compiler_takes_what_was_rewritten(tmp_path, target, capsys):
    """TensorRT-RTX on the CPU: its parser, and an engine with the inputs of the new contract."""
    path = write_responsive(tmp_path, Preprocessing(std=(0.2, 0.3, 0.4)))
    assert main([target, str(path), "--out", str(tmp_path / "out"), *TARGETS[target], "--json"]) == 0
    capsys.readouterr()
    assert inspect(["inspect", str(tmp_path / "out" / "tiny" / "tiny.onnx"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kernels"] >= 2
    assert found["inputs"] == "images 1x3x64x64" + (", orig_target_sizes 1x2" if target == "isaac-ros" else "")


def test_plugins_of_an_engine_are_named(tmp_path, capsys):
    engine = write_engine(tmp_path, options=BuildOptions(plugins=("/opt/libmodulate.so",)))
    assert main(["triton", str(engine), "--out", str(tmp_path / "out")]) == 0
    assert "LD_PRELOAD=libmodulate.so" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        ("deepstream", {"task": "instance"}, "finds masks, and nvinfer"),
        ("isaac-ros", {"task": "semantic"}, "finds a class for each pixel, and Isaac ROS"),
        ("cpp", {"task": "panoptic"}, r"maps of pixels \(panoptic\)"),
        ("deepstream", {"labels": ()}, "names no classes"),
        ("triton", {"postprocessed": False}, "raw outputs"),
        ("cpp", {"outputs": ()}, "does not take float32 and give labels"),
        ("deepstream", {"outputs": (TensorSpec("scores", "float32", (1,), ""),)}, "does not take float32"),
        ("isaac-ros", {"inputs": (TensorSpec("images", "float16", (1, 3, 64, 64), ""),)}, "does not take float32"),
        ("cpp", {"outputs": rows("float32")}, "other types than detect.cpp reads"),
        ("deepstream", {"inputs": (TensorSpec("else", "float32", (1, 3, 64, 64), ""),)}, "no input or output else"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_a_target_cannot_carry_is_refused_with_the_reason(tmp_path, target, changes, words):
    path = write_detector(tmp_path)
    change_contract(path, **changes)
    with pytest.raises(FineEdgeError, match=words):
        main([target, str(path), "--out", str(tmp_path / "out"), *TARGETS[target]])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["isaac-ros", "cpp"])
def test_a_batch_goes_where_batches_are_made(tmp_path, target):
    path = write_detector(tmp_path, batch=2)
    with pytest.raises(ConfigError, match=r"takes 2 pictures at a time.*--batch 1"):
        main([target, str(path), "--out", str(tmp_path / "out"), *TARGETS[target]])


def test_an_engine_is_no_graph_for_those_that_rewrite_it(tmp_path):
    engine = write_engine(tmp_path)
    for target in ("deepstream", "isaac-ros"):
        with pytest.raises(ConfigError, match=r"builds its own engine.*name the ONNX file: tiny.onnx"):
            main([target, str(engine), *TARGETS[target]])
    rtx = write_engine(tmp_path, options=BuildOptions(target="rtx-sm86"))
    with pytest.raises(ConfigError, match="TensorRT-RTX"):
        main(["triton", str(rtx)])


def test_frames_are_resized_by_the_graph_alone(tmp_path):
    path = write_detector(tmp_path)
    contract, artifact = bound_contract(path)
    frame = TensorSpec("frame", "uint8", (1, 360, 512, 3), "frames")
    with pytest.raises(ConfigError, match=r"takes whole frames.*--frame"):
        require_boxes(Deployable(path, replace(contract, inputs=(frame,)), "fp32", artifact.sha256), "nvinfer")
    with pytest.raises(ConfigError, match="is quantised, and nvinfer has no switch"):
        require_boxes(Deployable(path, contract, "int8", artifact.sha256), "nvinfer")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("triton", "--threshold", "0.4"), "is no option of triton"),
        (("cpp", "--camera", "640x480"), "is no option of cpp"),
        (("deepstream", "--device", "cpu"), "is no option of deepstream"),
        (("deepstream", "--threshold", "nan"), "is not a score"),
        (("deepstream", "--parser", "a\nb"), "no path"),
        (("isaac-ros",), "the camera is not known"),
        (("triton", "--name", "../x"), "no plain name"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, arguments, words):
    path = write_detector(tmp_path)
    target, *options = arguments
    with pytest.raises(ConfigError, match=words):
        main([target, str(path), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_our_own_folder_is_replaced_and_any_other_is_left(tmp_path):
    path = write_responsive(tmp_path, Preprocessing())
    arguments = ["triton", str(path), "--out", str(tmp_path / "models")]
    folder = tmp_path / "models" / "tiny"
    neighbour = tmp_path / "models" / "other" / "config.pbtxt"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text("theirs")
    assert main(arguments) == 0
    write_detector(tmp_path)  # another model of that name
    assert main(arguments) == 0
    assert (folder / "1" / "model.onnx").read_bytes() == path.read_bytes()
    assert neighbour.read_text() == "theirs"
    assert {entry.name for entry in folder.parent.iterdir()} == {"tiny", "other"}
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_text("version 2")
    with pytest.raises(OutputError, match=r"2/model.onnx: is not of fine-edge deploy and would be lost"):
        main(arguments)
    shutil.rmtree(folder / "2")
    with (folder / "config.pbtxt").open("a") as handle:
        handle.write("dynamic_batching {}\n")
    with pytest.raises(OutputError, match=r"config.pbtxt: was changed and would be lost"):
        main(arguments)
    (folder / "config.pbtxt").write_bytes(before[folder / "config.pbtxt"])
    with pytest.raises(OutputError, match="holds what is for triton"):
        main(["cpp", *arguments[1:]])
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff", b'{"format": 1}', b'{"format": 2}', None])
def test_a_foreign_folder_is_left_alone(tmp_path, content):
    path = write_detector(tmp_path)
    folder = tmp_path / "out" / "tiny"
    folder.mkdir(parents=True)
    (folder / ("theirs.txt" if content is None else "deploy.json")).write_bytes(content or b"")
    with pytest.raises(OutputError, match=r"--out"):
        main(["cpp", str(path), "--out", str(tmp_path / "out")])
    assert len(list(folder.iterdir())) == 1


def test_a_failure_leaves_the_old_folder(tmp_path, monkeypatch):
    path = write_responsive(tmp_path, Preprocessing())
    arguments = ["triton", str(path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    listing = (tmp_path / "out" / "tiny" / "deploy.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="No space left"):
            main(arguments)
    assert (tmp_path / "out" / "tiny" / "deploy.json").read_bytes() == listing
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["tiny"]


@pytest.mark.parametrize("damage", ["missing", "cut", "no contract", "another"])
def test_a_file_that_nobody_vouches_for_is_refused(tmp_path, damage):
    path = write_detector(tmp_path)
    if damage == "missing":
        path.unlink()
    elif damage == "no contract":
        contract_path(path).unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"not ONNX")
    with pytest.raises(ArtifactError):
        main(["deepstream", str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["triton", "cpp", "deepstream"])
def test_weights_beside_an_onnx_file_are_put_into_it(tmp_path, target):
    path = write_detector(tmp_path)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="tiny.weights", size_threshold=0)
    change_contract(path, artifacts=(Artifact(path.name, "fp32", identity_of(path)),))
    assert main([target, str(path), "--out", str(tmp_path / "out")]) == 0
    written = next((tmp_path / "out").rglob("*.onnx"))
    assert not external_tensors(onnx.load(written, load_external_data=False))
    assert {values.name for values in onnx.load(written).graph.initializer} >= {"zero"}


def test_names_of_classes_stay_on_their_lines(tmp_path):
    path = write_detector(tmp_path)
    change_contract(path, labels=("a\nb", "\x1b[31mred", 'c"d'))
    for target in ("triton", "cpp"):
        assert main([target, str(path), "--out", str(tmp_path / target)]) == 0
    assert (tmp_path / "triton" / "tiny" / "labels.txt").read_text() == 'a b\n\\x1b[31mred\nc"d\n'
    assert (tmp_path / "cpp" / "tiny" / "tiny.txt").read_text().endswith('label a b\nlabel \\x1b[31mred\nlabel c"d\n')
