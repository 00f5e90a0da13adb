"""Building of an engine for this machine, or reuse of one that was built from exactly the same things."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fine_edge import __version__, console
from fine_edge.engine import supervise
from fine_edge.engine.manifest import (
    Manifest,
    build_key,
    check_bytes,
    layers_path,
    manifest_path,
    plugin_hashes,
    read_manifest,
    read_plan,
)
from fine_edge.engine.options import BuildOptions, profile_of, resolved
from fine_edge.engine.plan import BuildJob
from fine_edge.engine.platform import Platform, here, require_tensorrt
from fine_edge.engine.preflight import Preflight, check, require_release
from fine_edge.engine.rtx_log import Kernel, kernels_in, parse_log
from fine_edge.engine.source import Source, engine_name, read_source, require_precision, sized_file
from fine_edge.errors import ArtifactError, FineEdgeError
from fine_edge.files import sha256_of, written_together
from fine_edge.graph.identity import identity_of
from fine_edge.graph.model_file import read_model
from fine_edge.machine import MIB

_LARGEST_CACHE = 2**30
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(frozen=True)
class Engine:
    """An engine on disk; ``reused`` is true when nothing had to be built."""

    path: Path
    manifest: Manifest
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        manifest = self.manifest
        return {
            "engine": str(self.path),
            "manifest": str(manifest_path(self.path)),
            "target": manifest.target,
            "precision": manifest.precision,
            "batches": manifest.options.batches,
            "kernels": manifest.kernels,
            "fused_attention": manifest.fused_attention,
            "activation_mib": round(manifest.activation_mib, 3),
            "weights_mib": None if manifest.weights_mib is None else round(manifest.weights_mib, 3),
            "build_s": None if manifest.build_s is None else round(manifest.build_s, 3),
            "reused": self.reused,
            "onnx_sha256": manifest.onnx_sha256,
            "engine_sha256": manifest.engine_sha256,
            "platform": dict(vars(manifest.platform)),
        }


def existing(engine: Path, key: str) -> Engine | None:
    """Return the engine if it is complete and was built from the same things; ``None`` otherwise."""
    try:
        manifest = read_manifest(engine)
        if manifest.key != key:
            return None
        check_bytes(engine, manifest, read_plan(engine))
        return Engine(engine, manifest, reused=True)
    except FineEdgeError:
        return None


def ensure_engine(onnx_path: Path, options: BuildOptions, out: Path) -> Path:
    """Return the path of the engine of an ONNX file; build it if there is none for this file, machine and options."""
    return obtain_engine(onnx_path, options, out).path


def obtain_engine(
    onnx_path: Path,
    options: BuildOptions,
    out: Path,
    *,
    rebuild: bool = False,
    skip_preflight: bool = False,
    timeout_s: float | None = None,
) -> Engine:
    """Find or build the engine of an ONNX file.

    Args:
        onnx_path: the graph; if a contract is beside it, it must list this file.
        options: what to build.
        out: folder of engine, manifest, layer description and timing cache.
        rebuild: build even where the engine exists.
        skip_preflight: build even where memory or disk seem too small.
        timeout_s: stop the builder after this time; ``None``: never.

    Raises:
        FineEdgeError: when the engine cannot be built; no partial file is left.
    """
    options = resolved(onnx_path, options)
    source = read_source(onnx_path, options.input_size, options.batches)
    require_precision(source, options)
    platform = here()
    if options.target == "tensorrt":
        require_tensorrt(platform, source.model)
        require_release(platform, options)
    supervise.require_builder(options.target)
    plugins = plugin_hashes(options)
    if source.plugin_nodes and not plugins:
        console.warn(
            f"{source.path.name} has the plugin's node {', '.join(source.plugin_nodes)}, and no --plugin-library is"
            " given: the engine computes the node by ordinary layers instead"
        )
    path = out / engine_name(source, options)
    # A file of the right name is not enough: the key is made of all that the engine was built from.
    found = None if rebuild else existing(path, build_key(source.sha256, options, platform, plugins))
    if found:
        return found
    ready = Preflight(options.workspace_mib, None, ())
    if not skip_preflight:
        ready = check(source, options, platform, out)
        for text in ready.warnings:
            console.warn(text)
    return _build(source, options, platform, plugins, path, ready, timeout_s)


def timing_cache_name(platform: Platform) -> str:
    """Return ``timing-10.7.0-orin-sm87.cache``: timings hold for one TensorRT on one device only."""
    device = re.sub(r"[^a-z0-9]+", "-", str(platform.gpu).lower()).strip("-")
    return f"timing-{platform.tensorrt}-{device}-sm{platform.sm}.cache"


def _build(
    source: Source,
    options: BuildOptions,
    platform: Platform,
    plugins: tuple[str, ...],
    path: Path,
    ready: Preflight,
    timeout_s: float | None,
) -> Engine:
    manifest_name = manifest_path(path).name
    with written_together(path.parent, path.name, last=manifest_name) as partial:
        plan, layers, cache = partial / path.name, partial / layers_path(path).name, None
        if options.target == "tensorrt":
            cache = partial / timing_cache_name(platform)
            _copy_cache(path.parent / cache.name, cache)
        model = read_model(source.path, weights=False)
        with sized_file(source.path, model, options.input_size, options.batches) as onnx:
            profile = profile_of(read_model(onnx, weights=False), options.batches) if options.batches else {}
            files = plan.absolute(), layers.absolute(), cache
            job = BuildJob(onnx.absolute(), options, ready.workspace_mib, *files, profile=profile)
            outcome = supervise.build(job, timeout_s)
        for lock in partial.glob("*.lock"):  # Polygraphy locks the cache, which no other process uses here
            lock.unlink()
        if identity_of(source.path) != source.sha256:
            hint = "wait until the file is complete, then build again"
            raise ArtifactError("was changed while its engine was built", where=source.path, hint=hint)
        manifest = Manifest(
            model=source.model,
            onnx_file=source.path.name,
            onnx_sha256=source.sha256,
            engine_sha256=sha256_of(plan),
            options=options,
            platform=platform,
            plugins_sha256=plugins,
            workspace_mib=ready.workspace_mib,
            power_mode=ready.power_mode,
            timing_cache_sha256=sha256_of(cache) if cache and cache.is_file() else None,
            **_figures(outcome, layers, options),
            build_s=float(outcome.report["build_s"]),
            built_at=now(),
            built_by="fine_edge",
            versions={"fine_edge": __version__, "polygraphy": str(outcome.report["polygraphy"])},
        )
        (partial / manifest_name).write_text(manifest.to_text(), encoding="utf-8")
    return Engine(path, manifest)


def _copy_cache(source: Path, target: Path) -> None:
    """Copy the timings of earlier builds, if there are any; they only make a build faster."""
    if source.is_file() and source.stat().st_size <= _LARGEST_CACHE:
        target.write_bytes(source.read_bytes())


def now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def figures_of(kernels: tuple[Kernel, ...] | None) -> dict[str, int | None]:
    """Return the number of kernels and of fused attentions; ``None`` where the engine does not list its layers."""
    if kernels is None:
        return {"kernels": None, "fused_attention": None}
    return {"kernels": len(kernels), "fused_attention": sum(kernel.is_fused_attention for kernel in kernels)}


def _figures(outcome: supervise.Outcome, layers: Path, options: BuildOptions) -> dict[str, Any]:
    """Return kernels and memory, from RTX's log or from the description of TensorRT's engine."""
    if options.target != "tensorrt":
        compiled = parse_log(outcome.log)
        memory = {"activation_mib": compiled.activation_mib, "weights_mib": compiled.weights_mib}
        return figures_of(compiled.kernels) | memory
    weights = _WEIGHTS.findall(outcome.log)
    return figures_of(kernels_in(layers.read_text(encoding="utf-8"))) | {
        "activation_mib": outcome.report["activation_bytes"] / MIB,
        "weights_mib": int(weights[-1]) / MIB if weights else None,
    }
