from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_detector import write_detector

from fine_edge.contract import sha256_of
from fine_edge.engine.manifest import (
    Manifest,
    build_key,
    contract_of,
    manifest_path,
    read_manifest,
    verified_plan,
)
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, BackendError

ORIN = Platform(tensorrt="10.7.0", cuda="12.6", l4t="36.4.0", gpu="Orin", sm=87)


def written(folder, platform=ORIN, **changes):
    """An engine file of 64 bytes with its manifest."""
    engine = folder / "tiny.fp16.engine"
    engine.write_bytes(b"plan" * 16)
    manifest = Manifest(
        model="tiny",
        onnx_file="tiny.onnx",
        onnx_sha256="ab" * 32,
        engine_sha256=sha256_of(engine),
        options=BuildOptions(),
        platform=platform,
        plugins_sha256=(),
        workspace_mib=512,
        power_mode="25W",
        timing_cache_sha256=None,
        kernels=7,
        fused_attention=1,
        activation_mib=3.5,
        weights_mib=None,
        build_s=12.25,
        built_at="2026-01-01T00:00:00+00:00",
        built_by="fine_edge",
        versions={"fine_edge": "0.1.0", "polygraphy": "0.49.14"},
    )
    manifest = replace(manifest, **changes)
    manifest_path(engine).write_text(manifest.to_text())
    return engine, manifest


def test_a_manifest_survives_its_file(tmp_path):
    engine, manifest = written(tmp_path)
    assert read_manifest(engine) == manifest
    assert verified_plan(engine, ORIN) == (manifest, b"plan" * 16)


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (replace(ORIN, tensorrt="10.3.0"), "TensorRT 10.7.0, here 10.3.0"),
        (replace(ORIN, gpu="NVIDIA GeForce RTX 3060", sm=86), "GPU Orin, here NVIDIA GeForce RTX 3060; SM 87, here 86"),
        (replace(ORIN, l4t="35.4.1"), "L4T 36.4.0, here 35.4.1"),
        (Platform(rtx="1.7.1"), "TensorRT 10.7.0, here none"),
    ],
)
def test_a_foreign_plan_gives_one_line_with_the_mend(tmp_path, here, words):
    engine, _ = written(tmp_path)
    with pytest.raises(BackendError) as caught:
        verified_plan(engine, here)
    assert words in str(caught.value)
    assert str(caught.value).endswith("-> run make engine MODEL=tiny")


def test_what_a_container_does_not_know_is_not_held_against_the_plan(tmp_path):
    engine, _ = written(tmp_path)
    assert verified_plan(engine, replace(ORIN, l4t=None, cuda=None))[1] == b"plan" * 16


def test_a_plan_of_rtx_never_goes_to_tensorrt(tmp_path):
    engine, _ = written(tmp_path, Platform(rtx="1.7.1"), options=BuildOptions(target="rtx-sm86"))
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\.7\.1 for SM86"):
        verified_plan(engine, ORIN)


@pytest.mark.parametrize("change", [b"plan" * 15, b"plan" * 16 + b"!", b"", b"PLAN" + b"plan" * 15])
def test_a_truncated_or_changed_plan_is_refused(tmp_path, change):
    engine, _ = written(tmp_path)
    engine.write_bytes(change)
    with pytest.raises(ArtifactError, match="was changed or cut: make engine MODEL=tiny"):
        verified_plan(engine, ORIN)


def test_without_a_manifest_nothing_is_loaded(tmp_path):
    engine, _ = written(tmp_path)
    manifest_path(engine).unlink()
    with pytest.raises(ArtifactError, match="engine adopt"):
        verified_plan(engine, ORIN)


def test_a_missing_engine_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="no such engine file"):
        verified_plan(tmp_path / "none.engine", ORIN)


@pytest.mark.parametrize("field", ["model", "engine_sha256", "platform", "kernels", "options", "built_by"])
def test_an_edited_manifest_is_refused_whatever_was_edited(tmp_path, field):
    engine, _ = written(tmp_path)
    data = json.loads(manifest_path(engine).read_text())
    data[field] = (
        Platform("10.3.0").to_json() if field == "platform" else {"precision": "fp32"} if field == "options" else 8
    )
    manifest_path(engine).write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="was edited or cut"):
        read_manifest(engine)


@pytest.mark.parametrize("size", range(0, 930, 37))
def test_a_cut_manifest_is_one_line(tmp_path, size):
    engine, _ = written(tmp_path)
    path = manifest_path(engine)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError) as caught:
        read_manifest(engine)
    assert "\n" not in str(caught.value)
    assert "make engine" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["null", "[1]", '{"format": 2}', '{"format": 1}', "\x00", '{"format": 1, "manifest_sha256": ""}']
)
def test_a_foreign_manifest_is_one_line(tmp_path, text):
    engine, _ = written(tmp_path)
    manifest_path(engine).write_text(text)
    with pytest.raises(ArtifactError, match="make engine"):
        read_manifest(engine)


def test_the_key_follows_what_decides_the_build():
    options = BuildOptions()
    base = build_key("ab", options, ORIN, ())
    assert build_key("ab", options, replace(ORIN, rtx="1.7.1"), ()) == base, "RTX builds nothing for TensorRT"
    others = [
        build_key("cd", options, ORIN, ()),
        build_key("ab", replace(options, optimization_level=5), ORIN, ()),
        build_key("ab", options, replace(ORIN, tensorrt="10.8.0"), ()),
        build_key("ab", options, replace(ORIN, gpu="Orin NX"), ()),
        build_key("ab", options, ORIN, ("ef",)),
    ]
    assert len({base, *others}) == 6


def test_a_compile_check_depends_on_its_compiler_and_not_on_the_machine():
    options = BuildOptions(target="rtx-sm86")
    base = build_key("ab", options, Platform(rtx="1.7.1"), ())
    assert build_key("ab", options, replace(ORIN, rtx="1.7.1"), ()) == base
    assert build_key("ab", options, Platform(rtx="1.8.0"), ()) != base


def test_a_changed_plugin_library_forbids_the_engine(tmp_path):
    library = tmp_path / "libfine.so"
    library.write_bytes(b"one")
    options = BuildOptions(plugins=(str(library),))
    engine, _ = written(tmp_path, options=options, plugins_sha256=(sha256_of(library),))
    assert verified_plan(engine, ORIN)[1]
    library.write_bytes(b"two")
    with pytest.raises(BackendError, match="has changed since the build"):
        verified_plan(engine, ORIN)
    library.unlink()
    with pytest.raises(BackendError, match="make plugins"):
        verified_plan(engine, ORIN)


def test_the_contract_must_speak_of_the_onnx_that_the_engine_came_from(tmp_path):
    onnx_path = write_detector(tmp_path)
    engine, _ = written(tmp_path, onnx_sha256=sha256_of(onnx_path))
    onnx_path.unlink()  # a device that got engine and contract alone
    assert contract_of(engine).model == "tiny"
    written(tmp_path, onnx_sha256="cd" * 32)
    with pytest.raises(ArtifactError, match="does not speak of the ONNX cdcdcdcdcdcd"):
        contract_of(engine)
