"""What torchvision's training scripts (``references/detection``) save beside the weights: their command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.zoo.inert import Record

# Its detectors of 2020 and 2021 were made for frozen batch norms without an epsilon, and go on without one in training.
_WITHOUT_EPS = (".COCO_V1", ".DEFAULT", "COCO_V1", "DEFAULT")


@dataclass(frozen=True)
class ScriptArguments:
    """Arguments that change what is computed.

    Attributes:
        model: name of torchvision's builder, ``None`` where the file does not say it.
        started_without_eps: whether the training started from published weights whose frozen batch norms have no
            epsilon.
    """

    model: str | None = None
    started_without_eps: bool = False


def script_arguments(beside: Any, path: Path) -> ScriptArguments:
    """Return the arguments in a checkpoint, all absent where there are none.

    Raises:
        WeightsError: for one that the weights need and a graph here does not have.
    """
    stated = beside.get("args") if isinstance(beside, dict) else None
    arguments = stated.attributes if isinstance(stated, Record) else stated
    if not isinstance(arguments, Mapping):
        return ScriptArguments()
    threshold = arguments.get("rpn_score_thresh")
    if threshold:
        raise WeightsError(
            f"its args say rpn_score_thresh = {threshold!r}, which changes what is computed and is not supported",
            where=path,
            hint="supported: 0; remove it from args if the detector was trained without",
        )
    model = arguments.get("model") if isinstance(arguments.get("model"), str) else None
    weights = arguments.get("weights")
    published = arguments.get("pretrained") is True or (isinstance(weights, str) and weights.endswith(_WITHOUT_EPS))
    return ScriptArguments(model, published and not (model or "").endswith("_v2"))
