"""A layer profile, and that of the model without FINE where there is one, as one JSON document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError
from fine_edge.files import read_json
from fine_edge.layers.by_part import part_sums
from fine_edge.layers.cost import Cost
from fine_edge.layers.layer import LayerProfile, profile_from
from fine_edge.text import printable_all

FORMAT = 1
_MEND = "python -m fine_edge.layers ... --json > FILE"


def to_json(profile: LayerProfile, baseline: LayerProfile | None = None) -> dict[str, Any]:
    """What ``--json`` prints: the layers, their sums by part, and what FINE costs."""
    return {
        "format": FORMAT,
        **profile.to_json(),
        "parts": [total.to_json() for total in part_sums(profile)],
        "baseline": baseline.to_json() if baseline else None,
        "cost": Cost(profile, baseline).to_json() if baseline else None,
    }


def read_layers(path: Path) -> tuple[LayerProfile, LayerProfile | None]:
    """The profile and the baseline's from what :func:`to_json` gave; sums are derived anew.

    Raises:
        ArtifactError: when the file is missing, broken or something else.
    """
    try:
        data = printable_all(read_json(path, ArtifactError, mend=_MEND))
        if data["format"] != FORMAT:
            raise ArtifactError(f"layer profile of format {data['format']}, known: {FORMAT}", where=path, mend=_MEND)
        baseline = data["baseline"]
        return profile_from(data), profile_from(baseline) if baseline else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"is no layer profile ({type(error).__name__}: {error})", where=path, mend=_MEND) from error
