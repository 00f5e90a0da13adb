"""Real builds with NVIDIA's compiler: for SM86, and on the path of a Jetson."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_graphs import attention, branched, heavy, mismatched, plugin_node, sampled_wrongly
from tiny_detector import write_detector

from fine_edge.contract import contract_path
from fine_edge.engine import preflight
from fine_edge.engine.adopt import adopt
from fine_edge.engine.build import ensure_engine, obtain_engine
from fine_edge.engine.manifest import check_onnx, layers_path, manifest_path, read_manifest
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.plan import BuildJob
from fine_edge.engine.platform import here
from fine_edge.engine.supervise import build
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.files import sha256_of

pytestmark = pytest.mark.host
RTX = BuildOptions(target="rtx-sm86")
PAIRED = Path(sys.prefix) / "polygraphy-device"
"""Where ``make setup`` puts the Polygraphy that a Jetson gets, the one paired with TensorRT 10.7."""


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def first_build(tmp_path_factory):
    """An engine, built once for all that read it or begin with a copy."""
    folder = tmp_path_factory.mktemp("built")
    return obtain_engine(attention(folder / "m.fp16.onnx", 16), RTX, folder / "out")


@pytest.fixture
def built(first_build, tmp_path):
    """Graph and folder of an engine, copied."""
    shutil.copytree(first_build.path.parent.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "m.fp16.onnx", tmp_path / "out"


def test_an_engine_comes_with_the_manifest_that_says_what_it_is(first_build):
    engine, out = first_build, first_build.path.parent
    onnx_path = out.parent / "m.fp16.onnx"
    assert not engine.reused
    assert names(out) == {"m.fp16.rtx-sm86.engine", "m.fp16.rtx-sm86.engine.json"}
    manifest = read_manifest(engine.path)
    assert manifest == engine.manifest
    assert manifest.engine_sha256 == sha256_of(engine.path)
    assert manifest.onnx_sha256 == sha256_of(onnx_path)
    assert manifest.fused_attention == 1
    assert manifest.activation_mib > 0
    assert str(manifest.platform.rtx).startswith("1.")
    assert manifest.build_s > 0


def test_one_stream_needs_less_memory_for_the_same_kernels(tmp_path):
    onnx_path = branched(tmp_path / "m.fp16.onnx")
    usual = obtain_engine(onnx_path, RTX, tmp_path / "usual").manifest
    single = obtain_engine(onnx_path, replace(RTX, max_aux_streams=0), tmp_path / "single").manifest
    assert single.kernels == usual.kernels
    assert single.activation_mib < 0.6 * usual.activation_mib
    assert single.options.max_aux_streams == 0


def test_a_second_build_does_nothing_and_a_changed_onnx_builds_again(first_build, built):
    onnx_path, out = built
    stamp = (out / first_build.path.name).stat().st_mtime_ns
    again = obtain_engine(onnx_path, RTX, out)
    assert (again.reused, again.manifest, again.path.stat().st_mtime_ns) == (True, first_build.manifest, stamp)
    attention(onnx_path, 32)  # the same name, another graph
    changed = obtain_engine(onnx_path, RTX, out)
    assert not changed.reused
    assert changed.manifest.onnx_sha256 != first_build.manifest.onnx_sha256


def test_other_weights_beside_the_same_onnx_build_again(tmp_path):
    onnx_path = heavy(tmp_path / "m.fp16.onnx")
    model = onnx.load(onnx_path)
    engine = None
    for number in (1, 2):
        (tmp_path / "w.bin").unlink(missing_ok=True)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((2048, 2048), number, np.float16), "w"))
        onnx.save(model, onnx_path, save_as_external_data=True, location="w.bin", size_threshold=0)
        model = onnx.load(onnx_path)
        if engine:
            with pytest.raises(ArtifactError, match="built from another"):
                check_onnx(engine.path, engine.manifest)
        engine = obtain_engine(onnx_path, RTX, tmp_path)
        assert not engine.reused
        check_onnx(engine.path, engine.manifest)
    assert obtain_engine(onnx_path, RTX, tmp_path).reused


@pytest.mark.parametrize("damage", ["engine cut", "manifest gone", "manifest edited"])
def test_a_damaged_engine_is_built_again(built, damage):
    onnx_path, out = built
    engine = obtain_engine(onnx_path, RTX, out).path
    whole = engine.read_bytes()
    if damage == "engine cut":
        engine.write_bytes(whole[:100])
    elif damage == "manifest gone":
        manifest_path(engine).unlink()
    else:
        manifest_path(engine).write_text(manifest_path(engine).read_text().replace('"kernels"', '"colonels"'))
    assert not obtain_engine(onnx_path, RTX, out).reused
    assert sha256_of(engine) == read_manifest(engine).engine_sha256


def test_a_rebuild_can_be_forced(built):
    onnx_path, out = built
    assert ensure_engine(onnx_path, RTX, out) == out / "m.fp16.rtx-sm86.engine"
    assert not obtain_engine(onnx_path, RTX, out, rebuild=True).reused


def test_a_graph_that_breaks_a_rule_is_not_built(tmp_path):
    path = sampled_wrongly(tmp_path / "m.onnx")
    with pytest.raises(ArtifactError, match=r"rule FE08 .* at /decoder/GridSample"):
        obtain_engine(path, BuildOptions("fp32", "rtx-sm86"), tmp_path / "out")


def test_a_refused_graph_leaves_nothing_behind(tmp_path):
    with pytest.raises((ArtifactError, BackendError)):
        obtain_engine(mismatched(tmp_path / "m.onnx"), BuildOptions("fp32", "rtx-sm86"), tmp_path / "out")
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("kind", "precision", "words"),
    [
        (TensorProto.FLOAT, "fp16", r"the graph is FP32.*fine_edge graph fp16 m\.onnx"),
        (TensorProto.FLOAT16, "fp32", "the graph is FP16 already, but fp32 needs an FP32 graph"),
    ],
)
def test_a_graph_of_another_precision_is_refused(tmp_path, kind, precision, words):
    path = attention(tmp_path / "m.onnx", 16, kind)
    with pytest.raises(ArtifactError, match=words):
        obtain_engine(path, BuildOptions(precision, "rtx-sm86"), tmp_path / "out")


def test_a_contract_that_vouches_for_another_file_stops_the_build(tmp_path):
    path = write_detector(tmp_path)
    contract = contract_path(path)
    contract.write_text(contract.read_text().replace(sha256_of(path), "ab" * 32))
    with pytest.raises(ArtifactError, match="export it again"):
        obtain_engine(path, BuildOptions("fp32", "rtx-sm86"), tmp_path / "out")


def test_without_tensorrt_the_line_names_the_ways_out(tmp_path):
    with pytest.raises(BackendError) as caught:
        obtain_engine(attention(tmp_path / "m.fp16.onnx", 16), BuildOptions(), tmp_path)
    assert "TensorRT is not on this machine -> copy m.* to the Jetson" in str(caught.value)
    assert "--target rtx-sm86" in str(caught.value)


@pytest.mark.usefixtures("jetson")
def test_on_a_jetson_the_engine_tells_of_its_layers(tmp_path):
    onnx_path, out = attention(tmp_path / "m.fp16.onnx", 16), tmp_path / "out"
    engine = obtain_engine(onnx_path, BuildOptions(), out)
    cache = "timing-10.7.0-orin-sm87.cache"
    assert names(out) == {"m.fp16.engine", "m.fp16.engine.json", "m.fp16.engine.layers.json", cache}
    manifest = engine.manifest
    assert (manifest.platform.tensorrt, manifest.platform.gpu, manifest.platform.sm) == ("10.7.0", "Orin", 87)
    assert (manifest.kernels, manifest.fused_attention, manifest.activation_mib) == (2, 1, 3.0)
    assert manifest.weights_mib is not None
    assert manifest.timing_cache_sha256 == sha256_of(out / cache)
    assert manifest.workspace_mib >= 128
    assert json.loads(layers_path(engine.path).read_text())["Bindings"] == ["q", "k", "v", "y"]
    assert obtain_engine(onnx_path, BuildOptions(), out).reused


def test_a_new_tensorrt_builds_again(tmp_path, jetson):
    onnx_path, out = attention(tmp_path / "m.fp16.onnx", 16), tmp_path / "out"
    obtain_engine(onnx_path, BuildOptions(), out)
    sys.modules.pop("tensorrt")
    jetson.setenv("SHIM_VERSION", "10.8.0")
    engine = obtain_engine(onnx_path, BuildOptions(), out)
    assert not engine.reused
    assert engine.manifest.platform.tensorrt == "10.8.0"


@pytest.mark.parametrize("paired", [False, True], ids=["newest Polygraphy", "Polygraphy of a Jetson"])
def test_weak_typing_sets_the_flags_and_keeps_layers(tmp_path, jetson, paired):
    if paired:
        assert PAIRED.is_dir(), "run make setup"
        jetson.setenv("PYTHONPATH", f"{PAIRED}:{Path(__file__).parent / 'tensorrt_shim'}")
    onnx_path = attention(tmp_path / "m.onnx", 16, TensorProto.FLOAT)
    options = BuildOptions("fp16-weak", keep_fp32=("/fine/Softmax",), workspace_mib=64, optimization_level=2)
    outcome = build(BuildJob(onnx_path, options, 64, tmp_path / "plan", tmp_path / "layers", tmp_path / "cache"))
    assert outcome.report["polygraphy"].startswith("0.49.14" if paired else "0.53.")
    kept = [line for line in outcome.log.splitlines() if line.startswith("shim: ")]
    assert kept == ["shim: /fine/Softmax stays DataType.FLOAT", "shim: /fine/Softmax stores output 0 as DataType.FLOAT"]
    # The flags that stand for FP16 and OBEY_PRECISION_CONSTRAINTS in the shim.
    flags = next(line for line in outcome.log.splitlines() if line.strip().startswith("Flags"))
    assert "DISABLE_TIMING_CACHE" in flags
    assert "DISABLE_COMPILATION_CACHE" in flags
    assert "WORKSPACE: 64.00 MiB" in outcome.log
    assert (tmp_path / "plan").stat().st_size == outcome.report["plan_bytes"]
    assert (tmp_path / "cache").is_file()


@pytest.mark.usefixtures("jetson")
def test_a_layer_to_keep_must_exist(tmp_path):
    onnx_path = attention(tmp_path / "m.onnx", 16, TensorProto.FLOAT)
    with pytest.raises(ArtifactError, match="no node is called '/fine/Softmaxx'"):
        obtain_engine(onnx_path, BuildOptions("fp16-weak", keep_fp32=("/fine/Softmaxx",)), tmp_path / "out")


@pytest.mark.usefixtures("jetson")
def test_a_plan_of_trtexec_is_taken_over(tmp_path):
    onnx_path = attention(tmp_path / "m.fp16.onnx", 16)
    plan = tmp_path / "by_trtexec.plan"
    plan.write_bytes(b"whatever trtexec wrote")
    engine = adopt(plan, onnx_path, BuildOptions(), tmp_path / "out")
    assert engine.path.read_bytes() == plan.read_bytes()
    manifest = read_manifest(engine.path)
    assert (manifest.built_by, manifest.kernels, manifest.activation_mib) == ("trtexec", 2, 3.0)
    assert (manifest.build_s, manifest.weights_mib) == (None, None)
    assert obtain_engine(onnx_path, BuildOptions(), tmp_path / "out").reused


@pytest.mark.usefixtures("jetson")
@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"foreign plan", "is not compatible with this version of TensorRT"),
        (b"crash plan", "the compiler crashed .signal 6"),
    ],
)
def test_a_plan_that_tensorrt_does_not_take_is_one_line(tmp_path, plan, words):
    (tmp_path / "p").write_bytes(plan)
    with pytest.raises(BackendError, match=words):
        adopt(tmp_path / "p", attention(tmp_path / "m.fp16.onnx", 16), BuildOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("jetson")
def test_a_plan_of_another_model_is_not_taken_over(tmp_path):
    (tmp_path / "p").write_bytes(b"plan")
    with pytest.raises(ArtifactError, match=r"only the (plan|ONNX) has input k"):
        adopt(tmp_path / "p", attention(tmp_path / "m.fp16.onnx", 32), BuildOptions(), tmp_path / "out")


def test_a_machine_without_tensorrt_has_a_platform_all_the_same():
    assert (here().tensorrt, here().gpu, here().sm) == (None, None, None)
    assert str(here().rtx).startswith("1.")


def test_too_little_memory_stops_the_build_before_it_starts(tmp_path, jetson):
    jetson.setattr(preflight, "BUILDER_MIB", 10**9)
    with pytest.raises(BackendError, match="--skip-preflight"):
        obtain_engine(attention(tmp_path / "m.fp16.onnx", 16), BuildOptions(), tmp_path / "out")
    assert obtain_engine(
        attention(tmp_path / "m.fp16.onnx", 16), BuildOptions(), tmp_path / "out", skip_preflight=True
    ).path.is_file()


def test_a_plugin_that_is_not_given_does_not_go_unnoticed(tmp_path, capsys):
    path = plugin_node(tmp_path / "m.onnx")
    obtain_engine(path, BuildOptions("fp32", "rtx-sm86"), tmp_path / "out")
    said = capsys.readouterr().err
    assert "FineModulate" in said
    assert "no --plugin-library is given: the engine computes the node by ordinary layers" in said
