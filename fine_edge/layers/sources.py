"""Make layer profiles from an engine's own files and their times, or with TensorRT-RTX's compiler.

The bench on a device writes its profile in trtexec's format, so that both are read alike.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fine_edge.engine.inspect import Inspection, inspect
from fine_edge.engine.manifest import Manifest, manifest_path, read_manifest
from fine_edge.engine.rtx_log import Kernel, profile_of, without_profile
from fine_edge.errors import ArtifactError
from fine_edge.graph.input_size import InputSize
from fine_edge.layers.layer import LayerProfile, LayerTime, attribute
from fine_edge.layers.layer_info import read_layer_info
from fine_edge.trtexec.exported import read_medians, read_profile

# Give the layers of an engine the times of a profile.

# If layers that the layer information names take less of the profile's time than this, the files are of two engines.
FEWEST_MATCHED = 0.9
# Myelin numbers its regions, kernels and tensors anew in each build: ``__myl_MulSumAdd_myl24_1``, ``__mye519_dconst``.
_NUMBERS = re.compile(r"(?<=_myl)\d+_\d+|(?<=__mye)\d+")


def joined(
    layers: Sequence[LayerTime], times: Sequence[tuple[str, float]], where: Path
) -> tuple[tuple[LayerTime, ...], tuple[str, ...]]:
    """Return the layers with their times, and remarks on what did not fit.

    Names can repeat: the n-th time belongs to the n-th layer of that name. What is left is joined by names without
    the numbers that change from build to build, where both files have as many of a name. Times without a layer become
    layers of their own, whose part follows from their name; a layer without a time was not executed.

    Args:
        layers: of the layer information, in order.
        times: name and milliseconds of each timed layer, in order.
        where: the file of the times.

    Raises:
        ArtifactError: when no layer took time, or most of the time belongs to layers that are missing.
    """
    total = sum(ms for _, ms in times)
    if total <= 0:
        raise ArtifactError("no layer took any time", where=where, hint="profile at least one inference")
    names, timed_names = [layer.name for layer in layers], [name for name, _ in times]
    found = _paired(dict(enumerate(names)), dict(enumerate(timed_names)))
    rest = {place: _without_numbers(name) for place, name in enumerate(names) if place not in found}
    unused = {place: _without_numbers(name) for place, name in enumerate(timed_names) if place not in found.values()}
    renumbered = _paired(rest, unused, equally_often=True)
    found |= renumbered
    left = [times[place] for place in unused if place not in renumbered.values()]
    if sum(ms for _, ms in left) > (1 - FEWEST_MATCHED) * total:
        raise ArtifactError(
            f"{len(left)} of {len(times)} timed layers are not in the layer information",
            where=where,
            hint="take both from the same engine",
        )
    timed = [
        _timed(layer, times[found[place]][1] if place in found else None, total) for place, layer in enumerate(layers)
    ]
    own = [_timed(_nameless(name), ms, total) for name, ms in left]
    return (*timed, *own), _remarks(len(renumbered), own, sum(layer.median_ms is None for layer in timed))


def _paired(layers: dict[int, str], times: dict[int, str], *, equally_often: bool = False) -> dict[int, int]:
    """Return the places of layers with the place of their time: the n-th of a name with the n-th.

    Args:
        layers: names by place in the layer information.
        times: names by place in the profile.
        equally_often: leave out names that the two have in different numbers: which of them is missing is not told.
    """
    waiting: dict[str, list[int]] = defaultdict(list)
    for place, name in times.items():
        waiting[name].append(place)
    same: dict[str, list[int]] = defaultdict(list)
    for place, name in layers.items():
        same[name].append(place)
    found: dict[int, int] = {}
    for name, places in same.items():
        if not equally_often or len(places) == len(waiting[name]):
            found.update(zip(places, waiting[name], strict=False))
    return found


def _without_numbers(name: str) -> str:
    return _NUMBERS.sub("", without_profile(name))


def _timed(layer: LayerTime, ms: float | None, total: float) -> LayerTime:
    return replace(layer, median_ms=ms, percent=None if ms is None else 100 * ms / total)


def _nameless(name: str) -> LayerTime:
    part, is_mixed = attribute(name, "", ())
    return LayerTime(name, "", (), part, is_mixed=is_mixed)


def _remarks(renumbered: int, own: Sequence[LayerTime], without: int) -> tuple[str, ...]:
    """Return one sentence on what does not fit; none where every layer has its time."""
    parts = []
    if renumbered:
        parts.append(f"{renumbered} layers are joined with times of other numbers (_myl24_1), in order")
    if own:
        percent = sum(layer.percent or 0.0 for layer in own)
        parts.append(f"{len(own)} timed layers ({percent:.1f} % of the time) are not in the layer information")
    if without:
        parts.append(f"{without} layers have no time")
    of_two = ": the files are of two builds" if renumbered or own else ""
    return (f"{', '.join(parts)}{of_two}.",) if parts else ()


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
