"""Read the times by layer that ``trtexec --exportProfile`` writes, and our bench in the same form.

Before release 8.4 there was no ``medianMs``; the average replaces it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError
from fine_edge.fields import amount
from fine_edge.trtexec.exported import read_exported

_HINT = "trtexec --loadEngine=ENGINE --separateProfileRun --dumpProfile --exportProfile=FILE"


def read_profile(path: Path) -> list[tuple[str, float]]:
    """Return name and milliseconds of one run for each layer, in order.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind.
    """
    data = read_exported(path, _HINT)
    try:
        entries = [(str(entry["name"]), _layer_ms(entry)) for entry in data if "count" not in entry]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"is no profile of trtexec ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_HINT) from error
    if not entries:
        raise ArtifactError("holds no layers", where=path, hint=_HINT)
    return entries


def _layer_ms(entry: dict[str, Any]) -> float:
    return amount(entry["medianMs"] if "medianMs" in entry else entry["averageMs"])
