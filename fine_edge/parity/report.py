"""Hold what one comparison found, output by output and as detections, and decide whether that is parity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fine_edge.contract import Precision
from fine_edge.detections import Agreement
from fine_edge.parity.tolerance import Tolerance


@dataclass(frozen=True)
class TensorDrift:
    """The differences of one output over all inputs.

    Attributes:
        output: its name.
        max_abs: largest absolute difference.
        max_rel: largest difference relative to the reference.
        at_quantile: the difference that decides: the largest among the share of rows that must be within tolerance.
        where: input, image and index of the largest difference.
        tolerance: the limit for ``at_quantile``.
    """

    output: str
    max_abs: float
    max_rel: float
    at_quantile: float
    where: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Return whether the difference is within tolerance; NaN is not."""
        return bool(self.at_quantile <= self.tolerance)


@dataclass(frozen=True)
class ParityReport:
    """The result of one comparison; ``non_finite`` says where one side gave NaN or an infinity."""

    model: str
    precision: Precision
    reference: str
    candidate: str
    artifact_sha256: str
    random_weights: bool
    inputs: tuple[str, ...]
    near_ties: tuple[str, ...]
    tensors: tuple[TensorDrift, ...]
    detections: Agreement | None  # None where no output holds detections
    tolerance: Tolerance
    non_finite: tuple[str, ...] = ()

    @property
    def flipped_share(self) -> float:
        """Return the share of both sides' detections that have no partner although they score above the cut-off."""
        d = self.detections
        if d is None:
            return 0.0
        return d.flipped / max(1, 2 * d.matched + d.flipped + d.ties)

    @property
    def ok(self) -> bool:
        """Return whether something was compared, every tensor is within tolerance and few detections are lost."""
        return (
            not self.compared_nothing
            and not self.non_finite
            and all(tensor.ok for tensor in self.tensors)
            and self.flipped_share <= self.tolerance.flipped
        )

    @property
    def compared_nothing(self) -> bool:
        """Return whether neither side found anything in any input, which proves nothing."""
        return not self.tensors and not (self.detections and self.detections.matched)

    @property
    def failure(self) -> str:
        """Return why it is not ok, in words."""
        if self.non_finite:
            return f"NaN or infinite: {', '.join(self.non_finite[:3])}"
        if self.compared_nothing:
            return "nothing was found that could be compared, in any input"
        tensor = ""
        if self.worst:
            worst = self.worst
            figures = f"{worst.at_quantile:.3g} (tolerance {worst.tolerance:.3g})"
            tensor = f"worst is {worst.output}, {figures}, largest at {worst.where}; "
        return f"{tensor}{self.flipped_share:.2%} of the detections flipped"

    @property
    def worst(self) -> TensorDrift | None:
        """Return the tensor nearest to, or furthest beyond, its tolerance; ``None`` where nothing was compared."""
        return max(
            self.tensors,
            key=lambda t: np.inf if np.isnan(t.at_quantile) else t.at_quantile / t.tolerance,
            default=None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        worst = self.worst
        return {
            "ok": self.ok,
            "model": self.model,
            "precision": self.precision,
            "reference": self.reference,
            "candidate": self.candidate,
            "artifact_sha256": self.artifact_sha256,
            "random_weights": self.random_weights,
            "inputs": list(self.inputs),
            "near_ties": list(self.near_ties),
            "non_finite": list(self.non_finite),
            "worst": worst
            and {"output": worst.output, "max_abs": worst.max_abs, "max_rel": worst.max_rel, "where": worst.where},
            "tensors": [asdict(tensor) | {"ok": tensor.ok} for tensor in self.tensors],
            "detections": self.detections and (asdict(self.detections) | {"flipped_share": self.flipped_share}),
            "tolerance": asdict(self.tolerance),
        }
