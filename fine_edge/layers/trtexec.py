"""Read the times that trtexec exports. Formats: NVIDIA/TensorRT, samples/common/sampleReporting.cpp of release 10.

    --exportProfile   [{"count": runs}, {"name", "timeMs", "averageMs", "medianMs", "percentage"}, ...]
    --exportTimes     [{"startEnqMs", "endEnqMs", "startH2dMs", ..., "h2dMs", "computeMs", "d2hMs", "latencyMs"}, ...]

Before release 8.4 there was no ``medianMs``; the average replaces it. The times do not include the warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError
from fine_edge.fields import amount
from fine_edge.layers.layer_info import read_json
from fine_edge.samples import median

_PROFILE_HINT = "trtexec --loadEngine=ENGINE --separateProfileRun --dumpProfile --exportProfile=FILE"
_TIMES_HINT = "trtexec --loadEngine=ENGINE --exportTimes=FILE"


@dataclass(frozen=True)
class QueryTimes:
    """Times in milliseconds by query; ``latency_ms`` is H2D + compute + D2H."""

    compute_ms: tuple[float, ...]
    latency_ms: tuple[float, ...]

    @property
    def compute_median_ms(self) -> float:
        """Return the median GPU compute time."""
        return median(self.compute_ms)

    @property
    def latency_median_ms(self) -> float:
        """Return the median latency."""
        return median(self.latency_ms)


def read_profile(path: Path) -> list[tuple[str, float]]:
    """Return name and milliseconds of one run for each layer, in order.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind.
    """
    data = read_json(path, _PROFILE_HINT)
    try:
        entries = [(str(entry["name"]), _layer_ms(entry)) for entry in data if "count" not in entry]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"is no profile of trtexec ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_PROFILE_HINT) from error
    if not entries:
        raise ArtifactError("holds no layers", where=path, hint=_PROFILE_HINT)
    return entries


def _layer_ms(entry: dict[str, Any]) -> float:
    return amount(entry["medianMs"] if "medianMs" in entry else entry["averageMs"])


def read_times(path: Path) -> QueryTimes:
    """Return compute time and latency of every query.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind.
    """
    data = read_json(path, _TIMES_HINT)
    try:
        compute = [amount(query["computeMs"]) for query in data]
        latency = [amount(query["latencyMs"]) for query in data]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"holds no times of trtexec ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_TIMES_HINT) from error
    if not compute:
        raise ArtifactError("holds no queries", where=path, hint=_TIMES_HINT)
    return QueryTimes(tuple(compute), tuple(latency))
