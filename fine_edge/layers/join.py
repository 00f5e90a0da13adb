"""Give the layers of an engine the times of a profile."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fine_edge.engine.rtx_log import without_profile
from fine_edge.errors import ArtifactError
from fine_edge.layers.by_part import attribute
from fine_edge.layers.layer import LayerTime

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
