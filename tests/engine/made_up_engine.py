"""An engine file with its manifest, made up: nothing deserialises it."""

from __future__ import annotations

from dataclasses import replace

from fine_edge.engine.manifest import Manifest, manifest_path
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.files import sha256_of

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
