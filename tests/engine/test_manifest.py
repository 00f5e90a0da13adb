from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_up_engine import ORIN, written

from fine_edge.engine.manifest import build_key, manifest_path, read_manifest
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError


def test_a_manifest_survives_its_file(tmp_path):
    engine, manifest = written(tmp_path)
    assert read_manifest(engine) == manifest


@pytest.mark.parametrize("field", ["model", "engine_sha256", "platform", "kernels", "options", "built_by"])
def test_an_edited_manifest_is_refused_whatever_was_edited(tmp_path, field):
    engine, _ = written(tmp_path)
    data = json.loads(manifest_path(engine).read_text())
    data[field] = (
        vars(Platform("10.3.0")) if field == "platform" else {"precision": "fp32"} if field == "options" else 8
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
