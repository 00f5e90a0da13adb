"""JSON that trtexec exports, and what it is by its content. Formats: NVIDIA/TensorRT, samples/common of release 10.

--exportProfile    [{"count": runs}, {"name", "timeMs", "averageMs", "medianMs", "percentage"}, ...]
--exportTimes      [{"startEnqMs", "endEnqMs", "startH2dMs", ..., "h2dMs", "computeMs", "d2hMs", "latencyMs"}, ...]
--exportLayerInfo  {"Layers": [...], "Bindings": [...]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError, RecordError
from fine_edge.fields import amount
from fine_edge.files import file_size
from fine_edge.samples import median
from fine_edge.trtexec.log import is_implausible_share
from fine_edge.trtexec.reading import is_json, read_trtexec_logs

# Largest file; it holds the times of a million inferences.
MOST_BYTES = 256 * 2**20

_PROFILE_HINT = "trtexec --loadEngine=ENGINE --separateProfileRun --dumpProfile --exportProfile=FILE"


@dataclass(frozen=True)
class ExportedKind:
    """A kind of exported file: trtexec's option, and the command that takes it."""

    option: str
    taken_by: str


_PROFILE = ExportedKind("--exportProfile", "fine-edge layers ENGINE.layers.json --profile FILE")
_TIMES = ExportedKind("--exportTimes", "fine-edge layers ENGINE.layers.json --times FILE")
_LAYERS = ExportedKind("--exportLayerInfo", "fine-edge layers FILE")


def exported_kind(data: object) -> ExportedKind | None:
    """Return what a JSON document of trtexec is; ``None`` for any other."""
    if isinstance(data, dict):
        return _LAYERS if "Layers" in data else None
    # The last one, because a profile begins with {"count": runs}.
    entry = data[-1] if isinstance(data, list) and data else None
    if not isinstance(entry, dict):
        return None
    if "computeMs" in entry:
        return _TIMES
    is_profile = "name" in entry and bool({"medianMs", "averageMs"} & entry.keys())
    return _PROFILE if is_profile else None


def read_exported(path: Path, hint: str) -> Any:
    """Read the JSON of an untrusted file; trtexec does not escape names, so strings may contain control characters.

    Raises:
        ArtifactError: when the file is missing or no JSON.
    """
    file_size(path, ArtifactError, hint=hint, limit=MOST_BYTES)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig", errors="replace"), strict=False)
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"is no JSON ({type(error).__name__}: {error})", where=path, hint=hint) from error


def read_profile(path: Path) -> list[tuple[str, float]]:
    """Return name and milliseconds of one run for each layer, in order, of a profile by trtexec or by our bench.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind.
    """
    data = read_exported(path, _PROFILE_HINT)
    try:
        entries = [(str(entry["name"]), _layer_ms(entry)) for entry in data if "count" not in entry]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"is no profile of trtexec ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_PROFILE_HINT) from error
    if not entries:
        raise ArtifactError("holds no layers", where=path, hint=_PROFILE_HINT)
    return entries


def _layer_ms(entry: dict[str, Any]) -> float:
    # Before release 8.4 there was no median.
    return amount(entry["medianMs"] if "medianMs" in entry else entry["averageMs"])


# Times of whole inferences: by query out of ``trtexec --exportTimes``, medians out of that or out of a log.
#
# The times do not include the warm-up.

_HINT = "trtexec --loadEngine=ENGINE --exportTimes=FILE"


@dataclass(frozen=True)
class QueryTimes:
    """Times in milliseconds by query; ``latency_ms`` is H2D + compute + D2H, ``h2d_ms`` of it the inputs' copy."""

    compute_ms: tuple[float, ...]
    latency_ms: tuple[float, ...]
    h2d_ms: tuple[float, ...]

    @property
    def compute_median_ms(self) -> float:
        """Return the median GPU compute time."""
        return median(self.compute_ms)

    @property
    def latency_median_ms(self) -> float | None:
        """Return the median latency; ``None`` where nothing was copied, or where H2D holds a wait."""
        # With --noDataTransfers trtexec repeats the compute time as the latency.
        copied = self.latency_ms != self.compute_ms
        latency_ms = median(self.latency_ms)
        return latency_ms if copied and not is_implausible_share(median(self.h2d_ms), latency_ms) else None


@dataclass(frozen=True)
class InferenceMedians:
    """Medians of an inference, milliseconds; the latency is ``None`` where H2D and D2H are not those of copies."""

    compute_ms: float
    latency_ms: float | None


def read_times(path: Path) -> QueryTimes:
    """Return the times of every query.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind.
    """
    data = read_exported(path, _HINT)
    try:
        compute = [amount(query["computeMs"]) for query in data]
        latency = [amount(query["latencyMs"]) for query in data]
        h2d = [amount(query["h2dMs"]) for query in data]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"holds no times of trtexec ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_HINT) from error
    if not compute:
        raise ArtifactError("holds no queries", where=path, hint=_HINT)
    return QueryTimes(tuple(compute), tuple(latency), tuple(h2d))


def read_medians(path: Path) -> InferenceMedians:
    """Return the medians that exported times or the log of one run give.

    Raises:
        FineEdgeError: when the file is missing, broken, of another kind, or holds no times or those of several runs.
    """
    if is_json(path, _HINT):
        times = read_times(path)
        return InferenceMedians(times.compute_median_ms, times.latency_median_ms)
    log, *more = read_trtexec_logs(path)
    # Medians of several runs belong to several settings, and nothing says which one the layers are of.
    if more:
        raise RecordError(f"holds {1 + len(more)} runs, one is needed", where=path, hint="split it at '&&&& RUNNING'")
    if log.why_untimed or log.compute is None:
        raise RecordError(log.why_untimed or "has no compute time", where=path, hint=_HINT)
    return InferenceMedians(log.compute.median_ms, log.latency_ms)
