"""Times of whole inferences: by query out of ``trtexec --exportTimes``, medians out of that or out of a log.

The times do not include the warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fine_edge.errors import ArtifactError, RecordError
from fine_edge.fields import amount
from fine_edge.samples import median
from fine_edge.trtexec.exported import read_exported
from fine_edge.trtexec.lines import is_json
from fine_edge.trtexec.log import is_implausible_share
from fine_edge.trtexec.reading import read_trtexec_logs

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
    if more:
        raise RecordError(f"holds {1 + len(more)} runs, one is needed", where=path, hint="split it at '&&&& RUNNING'")
    if log.why_untimed or log.compute is None:
        raise RecordError(log.why_untimed or "has no compute time", where=path, hint=_HINT)
    return InferenceMedians(log.compute.median_ms, log.latency_ms)
