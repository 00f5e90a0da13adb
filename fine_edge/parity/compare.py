"""Compare outputs, tensor by tensor and as detections.

A detector's queries come out of a top-k, and rounding swaps near-ties. So rows are first paired by their contents
(boxes, classes, scores), never by their index. Dense outputs are compared element by element, class maps by the share
of pixels that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fine_edge.contract import Artifact, Contract
from fine_edge.detections import Agreement, Detections, agree, from_outputs, from_raw
from fine_edge.errors import ArtifactError
from fine_edge.parity.report import (
    CLASS_MAPS,
    KNOWN_OUTPUTS,
    TOLERANCES,
    ParityReport,
    TensorDrift,
    Tolerance,
    tolerance_for,
)
from fine_edge.runners.base import Array

Outputs = dict[str, Array]
Indices = NDArray[np.intp]
Doubles = NDArray[np.float64]

# Rows further apart than this are different queries: each side let another near-tie into its top-k.
SAME_QUERY_PX = 32.0
# Rounding in FP32 moves a proposal's logit by about 1e-5.
NEAR_TIE_LOGIT = 5e-5
# A query that is exchanged for another changes at most a few (query, class) pairs.
NEAR_TIE_FLIPS = 6


@dataclass(frozen=True)
class Case:
    """One input with its outputs.

    Attributes:
        name: of the input.
        expected: outputs of the reference.
        got: outputs of the artifact.
        selection_margin: gap between the reference's last proposal that became a query and its first that did not.
    """

    name: str
    expected: Outputs
    got: Outputs
    selection_margin: float = float("inf")

    @property
    def pictures(self) -> int:
        """Return the number of pictures in the batch."""
        return min((len(value) for value in self.expected.values()), default=0)

    @property
    def near_tie(self) -> bool:
        """Return whether FP32 rounding may select another query than the reference did."""
        return self.selection_margin < NEAR_TIE_LOGIT


def compare(
    contract: Contract, artifact: Artifact, cases: list[Case], *, reference: str, candidate: str
) -> ParityReport:
    """Compare the outputs of several inputs with the tolerances of the artifact's precision.

    Raises:
        ArtifactError: when an output is missing, or its shape is not that of the contract.
    """
    tolerance = tolerance_for(contract, artifact.precision)
    # Where every row must agree, an input whose queries depend on rounding is compared only as detections.
    near_ties = {case.name for case in cases if case.near_tie and tolerance.quantile == 1}
    if len(near_ties) == len(cases):
        near_ties = set()
    finds_objects = _of_rows(contract) >= {"boxes_xyxy"} or _of_rows(contract) >= {"logits"}
    agreements: list[Agreement] = []
    differences: dict[str, list[_Difference]] = {}
    for case in cases:
        _check_shapes(contract, case, artifact.file)
        for image in range(case.pictures):
            if finds_objects:
                expected, got = (_detections(contract, outputs, image) for outputs in (case.expected, case.got))
                agreement = agree(expected, got, score_tolerance=tolerance.score)
                near_tie = case.name in near_ties
                agreements.append(_forgive_one_query(agreement) if near_tie else agreement)
                if near_tie:
                    continue
            for name, difference in _differences(contract, case, image, tolerance):
                differences.setdefault(name, []).append(difference)
    return ParityReport(
        model=contract.model,
        precision=artifact.precision,
        reference=reference,
        candidate=candidate,
        artifact_sha256=artifact.sha256,
        random_weights=contract.random_weights,
        inputs=tuple(case.name for case in cases),
        near_ties=tuple(case.name for case in cases if case.name in near_ties),
        tensors=tuple(_drift(contract, name, found, tolerance) for name, found in differences.items()),
        detections=_total(agreements) if finds_objects else None,
        tolerance=tolerance,
        non_finite=tuple(_non_finite(contract, cases)),
    )


def _non_finite(contract: Contract, cases: list[Case]) -> Iterator[str]:
    """Yield the outputs of either side that hold NaN or infinities, with the name of the input."""
    for case in cases:
        for side, outputs in (("reference", case.expected), ("artifact", case.got)):
            for spec in contract.outputs:
                if not np.isfinite(outputs[spec.name]).all():
                    yield f"{spec.name} of the {side} ({case.name})"


def _forgive_one_query(agreement: Agreement) -> Agreement:
    """Count as ties what one exchanged query explains: a few flipped detections, while the others hardly move."""
    small = agreement.flipped <= NEAR_TIE_FLIPS and agreement.max_score_drift <= TOLERANCES["fp16"].score
    return replace(agreement, flipped=0, ties=agreement.ties + agreement.flipped) if small else agreement


def _check_shapes(contract: Contract, case: Case, where: object) -> None:
    if contract.postprocessed and contract.task != "semantic":
        lacking = sorted({"labels", "boxes_xyxy", "scores"} - {spec.name for spec in contract.outputs})
        if lacking:
            raise ArtifactError(f"the contract has no output {', '.join(lacking)}", where=where)
    unknown = [spec.name for spec in contract.outputs if spec.name not in (*KNOWN_OUTPUTS, "labels")]
    if unknown or not contract.outputs:
        raise ArtifactError(f"the contract's output {', '.join(unknown) or '(none)'} cannot be compared", where=where)
    for spec in contract.outputs:
        for name, outputs in (("reference", case.expected), ("artifact", case.got)):
            found = outputs[spec.name].shape if spec.name in outputs else "nothing"
            batch = case.pictures if contract.batches else contract.batch
            if found != (batch, *spec.shape[1:]):
                raise ArtifactError(
                    f"the {name} gives {found} for {spec.name}, the contract says {spec.shape}", where=where
                )


def _detections(contract: Contract, outputs: Outputs, image: int) -> Detections:
    if contract.postprocessed:
        return from_outputs(outputs, image)
    with np.errstate(invalid="ignore"):  # inf - inf
        return from_raw(outputs, *contract.input_hw, image)


@dataclass(frozen=True)
class _Difference:
    """Absolute and relative differences of one output's paired rows (N, ...), and the place of the largest."""

    absolute: Doubles
    relative: Doubles
    largest: float
    where: str


def _of_rows(contract: Contract) -> set[str]:
    """Return the outputs whose rows may change places: detections, or the queries of RT-DETR's raw outputs."""
    names = {spec.name for spec in contract.outputs}
    if contract.postprocessed:
        return names & {"labels", "boxes_xyxy", "scores", "masks"}
    return names if names == {"logits", "boxes"} else set()


def _differences(contract: Contract, case: Case, image: int, tolerance: Tolerance) -> list[tuple[str, _Difference]]:
    of_rows = _of_rows(contract)
    pairs = _paired(contract, case, image) if of_rows else None
    found = []
    for spec in contract.outputs:
        a, b = (outputs[spec.name][image] for outputs in (case.expected, case.got))
        name = f"{case.name}, image {image}"
        if spec.name in CLASS_MAPS:
            share = np.array([np.mean(a != b)])
            found.append((spec.name, _Difference(share, share, float(share[0]), name)))
        elif tolerance.of(spec.name, contract) is None:
            continue
        elif spec.name in of_rows and pairs is not None:
            if len(pairs.rows) or pairs.expected:
                found.append((spec.name, _difference(a[pairs.rows], b[pairs.partners], pairs.rows, name)))
        else:
            a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
            found.append((spec.name, _difference(a, b, np.arange(len(a)), name)))
    return found


def _difference(a: Array, b: Array, rows: Indices, name: str) -> _Difference:
    """Compare rows ``a`` (N, ...) with their partners ``b``; ``rows`` are the indices in the reference."""
    mine, theirs = a.astype(np.float64), b.astype(np.float64)
    absolute = np.abs(mine - theirs)
    if not absolute.size:
        return _Difference(absolute, absolute, float("inf"), f"{name}: no row has a partner")
    flat = int(np.argmax(np.where(np.isnan(absolute), np.inf, absolute)))
    index = np.unravel_index(flat, absolute.shape)
    where = (int(rows[index[0]]), *(int(i) for i in index[1:]))
    # Relative to the value, or to a thousandth of the largest where the value is smaller.
    relative = absolute / np.maximum(np.abs(mine), 1e-3 * np.abs(mine).max() + 1e-12)
    return _Difference(absolute, relative, float(absolute[index]), f"{name}, row {where}")


def _drift(contract: Contract, name: str, found: list[_Difference], tolerance: Tolerance) -> TensorDrift:
    limit = tolerance.of(name, contract)
    assert limit is not None  # _differences leaves out outputs without a limit
    worst = max(found, key=lambda d: np.inf if np.isnan(d.largest) else d.largest)
    rows = [d.absolute.reshape(len(d.absolute), -1).max(axis=1) for d in found if d.absolute.size]
    per_row = np.concatenate(rows) if rows else np.array([np.inf])
    per_row = np.where(np.isnan(per_row), np.inf, per_row)
    return TensorDrift(
        output=name,
        max_abs=worst.largest,
        max_rel=max((float(d.relative.max()) for d in found if d.relative.size), default=float("inf")),
        at_quantile=float(np.quantile(per_row, tolerance.quantile, method="higher")),
        where=worst.where,
        tolerance=limit,
    )


@dataclass(frozen=True)
class _Pairs:
    """``rows`` of the reference, their ``partners`` in the candidate, and the number of rows to pair, ``expected``."""

    rows: Indices
    partners: Indices
    expected: int


def _present(outputs: Outputs, image: int) -> Indices:
    """Return the rows that hold a candidate: all queries, and detections whose score is not 0, NaN included."""
    if "scores" not in outputs:
        return np.arange(len(outputs["boxes"][image]))
    return np.flatnonzero(outputs["scores"][image] != 0)


def _assign(case: Case, image: int) -> tuple[Indices, Indices]:
    """Pair the rows of reference and candidate by their contents: boxes first, then scores."""
    from scipy.optimize import linear_sum_assignment

    mine, theirs = _present(case.expected, image), _present(case.got, image)
    box_name, score_name = ("boxes", "logits") if "boxes" in case.expected else ("boxes_xyxy", "scores")
    boxes = case.expected[box_name][image][mine], case.got[box_name][image][theirs]
    if not len(mine) or not len(theirs):
        return mine[:0], theirs[:0]
    cost = _distances(*boxes)
    cost = cost / (np.nanmax(cost, initial=0.0, where=np.isfinite(cost)) or 1.0)
    scores = case.expected[score_name][image][mine], case.got[score_name][image][theirs]
    cost = cost + 1e-3 * _distances(*(x.reshape(len(x), -1) for x in scores))
    if "labels" in case.expected:
        labels = case.expected["labels"][image][mine], case.got["labels"][image][theirs]
        cost = cost + 10.0 * (labels[0][:, None] != labels[1][None])
    rows, columns = linear_sum_assignment(np.nan_to_num(cost, nan=1e6, posinf=1e6))
    return mine[rows], theirs[columns]


def _distances(a: Array, b: Array) -> Doubles:
    """Return the largest coordinate difference (N, M) of every row of a (N, D) and every row of b (M, D)."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    out = np.zeros((len(left), len(right)))
    with np.errstate(invalid="ignore"):  # inf - inf
        for dim in range(left.shape[1]):  # one at a time: (N, M, D) would take 80 times the memory
            np.maximum(out, np.abs(left[:, None, dim] - right[None, :, dim]), out=out)
    return out


def _paired(contract: Contract, case: Case, image: int) -> _Pairs:
    """Return the pairs that are the same candidate; the other rows are near-ties, which the detections count."""
    rows, partners = _assign(case, image)
    box_name, to_px = ("boxes_xyxy", 1.0) if contract.postprocessed else ("boxes", float(max(contract.input_hw)))
    boxes: list[Doubles] = [x[box_name][image].astype(np.float64) for x in (case.expected, case.got)]
    expected, got = boxes
    with np.errstate(invalid="ignore"):
        gap_px = np.abs(expected[rows] - got[partners]).max(axis=1, initial=0.0)
    same = ~(gap_px * to_px > SAME_QUERY_PX)  # NaN stays in, so that it is reported
    if contract.postprocessed:
        same &= case.expected["labels"][image][rows] == case.got["labels"][image][partners]
    return _Pairs(rows[same], partners[same], len(_present(case.expected, image)))


def _total(agreements: list[Agreement]) -> Agreement:
    return Agreement(
        sum(a.matched for a in agreements),
        sum(a.flipped for a in agreements),
        sum(a.ties for a in agreements),
        max(a.max_score_drift for a in agreements),
        max(a.max_box_drift_px for a in agreements),
    )
