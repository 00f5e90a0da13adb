"""Make layer profiles from an engine's own files, or with TensorRT-RTX's compiler.

The bench on a device writes its profile in trtexec's format, so that both are read alike.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fine_edge.engine.inspect import Inspection, inspect
from fine_edge.engine.manifest import Manifest, manifest_path, read_manifest
from fine_edge.engine.rtx_log import Kernel, profile_of
from fine_edge.errors import ArtifactError
from fine_edge.graph.input_size import InputSize
from fine_edge.layers.by_part import attribute
from fine_edge.layers.join import joined
from fine_edge.layers.layer import LayerProfile, LayerTime
from fine_edge.layers.layer_info import read_layer_info
from fine_edge.trtexec.exported import read_profile
from fine_edge.trtexec.times import read_medians


def from_trtexec(layers_path: Path, profile_path: Path | None = None, times_path: Path | None = None) -> LayerProfile:
    """Join an engine's layer information with its profile; without a profile the layers have no times.

    Args:
        layers_path: layer information of the engine.
        profile_path: times by layer.
        times_path: times of whole inferences, ``trtexec --exportTimes`` or its log.

    Raises:
        FineEdgeError: when a file cannot be read, they belong to different engines, or the layer information holds
            names only and there is no profile.
    """
    source, times = f"{layers_path.name}, not timed", None
    if profile_path:
        source, times = f"{layers_path.name}, timed in {profile_path.name}", read_profile(profile_path)
    info = read_layer_info(layers_path, profile_of(times[0][0]) if times else 0)
    if not info.is_detailed and times is None:
        raise ArtifactError(
            "holds names only, the engine was built without details: no kernels and no MiB can be told",
            where=layers_path,
            hint="build it with --profilingVerbosity=detailed, or give its times with --profile",
        )
    layers, remarks = info.layers, info.remarks
    if times and profile_path:
        layers, about_times = joined(layers, times, profile_path)
        remarks += about_times
    manifest = _manifest(layers_path)
    if manifest and manifest.options.batches:
        least, best, most = manifest.options.batches
        remarks += (f"built for batches of {least} to {most}: kernels are those for {best}, memory is that of {most}",)
    activation_mib = manifest.activation_mib if manifest else None
    found = LayerProfile(source, layers, activation_mib=activation_mib, remarks=remarks)
    if not times_path:
        return found
    queries = read_medians(times_path)
    return replace(found, compute_ms=queries.compute_ms, latency_ms=queries.latency_ms)


def _manifest(layers_path: Path) -> Manifest | None:
    """Return the manifest beside an engine of ours; ``None`` without one."""
    engine = layers_path.with_name(layers_path.name.removesuffix(".layers.json"))
    ours = engine != layers_path and manifest_path(engine).is_file()
    return read_manifest(engine) if ours else None


def from_onnx(onnx_path: Path, size: InputSize | None = None) -> LayerProfile:
    """Compile with TensorRT-RTX on this machine and return the kernels with their parts and bytes; nothing is run.

    Args:
        onnx_path: the model.
        size: size of the input, for a graph that leaves it open.

    Raises:
        FineEdgeError: as :func:`fine_edge.engine.inspect.inspect`.
    """
    return from_inspection(inspect(onnx_path, size=size), onnx_path.name)


def from_inspection(found: Inspection, name: str) -> LayerProfile:
    """Return the profile of a compiled graph called ``name``."""
    seen: set[str] = set()
    layers = tuple(_from_kernel(kernel, seen) for kernel in found.compiled.kernels)
    inputs = f" ({found.inputs})" if found.inputs else ""
    source = f"{name}{inputs}, compiled by {found.compiler} for SM86, nothing run on a GPU"
    return LayerProfile(source, layers, activation_mib=found.compiled.activation_mib)


def _from_kernel(kernel: Kernel, seen: set[str]) -> LayerTime:
    new = [(name, size) for name, size in kernel.constants if name not in seen]
    seen.update(name for name, _ in new)
    part, is_mixed = attribute(kernel.name, kernel.kind, kernel.onnx_nodes)
    return LayerTime(
        name=kernel.name,
        kind=kernel.kind,
        onnx_nodes=kernel.onnx_nodes,
        part=part,
        written_bytes=kernel.written_bytes,
        weights_bytes=sum(size for _, size in new),
        is_mixed=is_mixed,
    )
