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

from fine_edge.errors import ArtifactError
from fine_edge.fields import amount
from fine_edge.files import file_size

MOST_BYTES = 256 * 2**20
"""Largest file; it holds the times of a million inferences."""

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
