from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_engine import ORIN, written
from tiny_detector import write_detector

from fine_edge.engine.manifest import contract_of, manifest_path, verified_plan
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.files import sha256_of


def test_a_plan_of_this_machine_comes_with_its_manifest(tmp_path):
    engine, manifest = written(tmp_path)
    assert verified_plan(engine, ORIN) == (manifest, b"plan" * 16)


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (replace(ORIN, tensorrt="10.3.0"), "TensorRT 10.7.0, here 10.3.0"),
        (
            replace(ORIN, tensorrt="10.16.2.10", cuda="13.2", l4t="39.2.1"),
            "TensorRT 10.7.0, here 10.16.2.10; L4T 36.4.0",
        ),
        (replace(ORIN, gpu="NVIDIA GeForce RTX 3060", sm=86), "GPU Orin, here NVIDIA GeForce RTX 3060; SM 87, here 86"),
        (replace(ORIN, l4t="35.4.1"), "L4T 36.4.0, here 35.4.1"),
        (Platform(rtx="1.7.1"), "TensorRT 10.7.0, here none"),
    ],
)
def test_a_foreign_plan_gives_one_line_with_the_hint(tmp_path, here, words):
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
