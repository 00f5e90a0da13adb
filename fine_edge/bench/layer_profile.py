"""Time by layer as a file in the format of trtexec's ``--exportProfile``, so that one reader takes both.

Format (NVIDIA/TensorRT, samples/common/sampleReporting.cpp): a list whose first entry is ``{"count": runs}``, then
for each layer ``name``, ``timeMs`` (of all runs), ``averageMs``, ``medianMs`` and ``percentage`` of the network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fine_edge import atomic
from fine_edge.bench.statistics import median


def trtexec_profile(ms_by_layer: dict[str, list[float]], runs: int) -> list[dict[str, Any]]:
    """The entries of the file from the times of each layer, in the order of execution."""
    total_ms = sum(sum(times) for times in ms_by_layer.values())
    return [
        {"count": runs},
        *(
            {
                "name": name,
                "timeMs": sum(times),
                "averageMs": sum(times) / runs,
                "medianMs": median(times),
                "percentage": 100 * sum(times) / total_ms if total_ms else 0.0,
            }
            for name, times in ms_by_layer.items()
        ),
    ]


def write_profile(path: Path, ms_by_layer: dict[str, list[float]], runs: int) -> None:
    """Write the file, whole or not at all."""
    atomic.write_text(path, json.dumps(trtexec_profile(ms_by_layer, runs), indent=1) + "\n")
