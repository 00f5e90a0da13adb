"""Adoption of a plan that trtexec built on this machine: it gets a manifest and is then used like our own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fine_edge import __version__
from fine_edge.contract import Batches
from fine_edge.engine import supervise
from fine_edge.engine.build import Engine, figures_of, now
from fine_edge.engine.manifest import Manifest, layers_path, manifest_path, plugin_hashes, read_plan
from fine_edge.engine.options import BuildOptions, resolved
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.engine.preflight import require_release
from fine_edge.engine.rtx_log import kernels_in
from fine_edge.engine.source import Source, engine_name, model_of, read_source, sized
from fine_edge.errors import ArtifactError
from fine_edge.files import output_errors, sha256_of, written_together
from fine_edge.graph.input_size import network_inputs
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView
from fine_edge.machine import MIB


def adopt(plan: Path, onnx_path: Path, options: BuildOptions, out: Path) -> Engine:
    """Copy a plan into ``out`` under the name of an engine, with a manifest for this machine.

    The batches that it takes are those of its optimisation profile. A plan does not name its ONNX file, so the caller
    must name the right one. Two things are checked: TensorRT loads the plan in a process of its own, and the plan's
    inputs and outputs are those of the ONNX.

    Args:
        plan: the file written by ``trtexec --saveEngine``.
        onnx_path: the file that trtexec was given with ``--onnx``.
        options: the options that trtexec was given: precision, optimization level, plugins.
        out: folder of the engine.

    Raises:
        ArtifactError: when the plan's inputs and outputs are not the model's, or its profile is none of batches.
        BackendError: without TensorRT, when it cannot have built with these options, or when it refuses the plan.
    """
    data = read_plan(plan)
    platform = here()
    require_tensorrt(platform, model_of(onnx_path))
    require_release(platform, options)
    # A plan of another release or machine can end the process that loads it, so another process does.
    found = supervise.describe(plan)
    options = resolved(onnx_path, replace(options, batches=_batches(plan, found)))
    source = read_source(onnx_path, options.input_size, options.batches)
    plugins = plugin_hashes(options)
    _check_tensors(plan, found["tensors"], source, options)
    path = out / engine_name(source, options)
    manifest_name = manifest_path(path).name
    # The manifest comes last: a kill before that leaves an engine without one, which nothing loads.
    with written_together(out, path.name, last=manifest_name) as partial:
        copy = partial / path.name
        with output_errors(path):
            copy.write_bytes(data)
            (partial / layers_path(path).name).write_text(found["layers"], encoding="utf-8")
        manifest = Manifest(
            model=source.model,
            onnx_file=source.path.name,
            onnx_sha256=source.sha256,
            engine_sha256=sha256_of(copy),
            options=options,
            platform=platform,
            plugins_sha256=plugins,
            workspace_mib=options.workspace_mib,
            power_mode=None,
            timing_cache_sha256=None,
            **figures_of(kernels_in(found["layers"])),
            activation_mib=int(found["activation_bytes"]) / MIB,
            weights_mib=None,
            build_s=None,
            built_at=now(),
            built_by="trtexec",
            versions={"fine_edge": __version__, "polygraphy": None},
        )
        (partial / manifest_name).write_text(manifest.to_text(), encoding="utf-8")
    return Engine(path, manifest)


def _batches(plan: Path, described: dict[str, Any]) -> Batches | None:
    """Return the batches of a plan's optimisation profile; ``None`` where its inputs are static.

    Raises:
        ArtifactError: when it has several profiles, or one that leaves more than the batch open.
    """
    profiles = [tensor["profile"] for tensor in described["tensors"] if "profile" in tensor]
    if not profiles:
        return None
    hint = (
        "build it with one profile: trtexec --minShapes=... --optShapes=... --maxShapes=..., or fine-edge engine build"
    )
    if described["profiles"] != 1:
        raise ArtifactError(f"the plan has {described['profiles']} optimisation profiles", where=plan, hint=hint)
    batches = {tuple(shape[0] for shape in shapes) for shapes in profiles}
    if len(batches) > 1 or any(len({tuple(shape[1:]) for shape in shapes}) > 1 for shapes in profiles):
        raise ArtifactError("the plan's profile leaves more than the batch open", where=plan, hint=hint)
    least, best, most = batches.pop()
    return least, best, most


def _check_tensors(plan: Path, tensors: list[dict[str, Any]], source: Source, options: BuildOptions) -> None:
    """Refuse a plan whose inputs and outputs are not those of the ONNX."""
    model = sized(read_model(source.path, weights=False), source.path, options.input_size, options.batches)
    view = GraphView(model)
    wanted = {
        (mode, value.name, tuple(-1 if dim is None else dim for dim in view.shape(value.name) or ()))
        for mode, values in (("input", network_inputs(model)), ("output", model.graph.output))
        for value in values
    }
    found = {(str(t["mode"]), str(t["name"]), tuple(int(d) for d in t["shape"])) for t in tensors}
    if found != wanted:
        first = sorted(found ^ wanted)[0]
        side = "the plan" if first in found else "the ONNX"
        raise ArtifactError(
            f"the plan was not built from {source.path.name}: only {side} has {first[0]} {first[1]} {list(first[2])}",
            where=plan,
            hint="give the ONNX file that trtexec was given with --onnx",
        )
