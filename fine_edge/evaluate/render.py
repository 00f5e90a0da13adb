"""An evaluation for people."""

from __future__ import annotations

from fine_edge.evaluate.error_counts import ErrorCounts
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.matching import CONFIDENCE, IOU
from fine_edge.table import Column, Table


def percent(value: float | None) -> str | None:
    """A fraction in per cent, as the field prints AP; ``None`` where there is nothing it could be of."""
    return None if value is None or value < 0 else f"{100 * value:.1f}"


def _title(evaluation: Evaluation) -> str:
    origin = evaluation.origin
    known = [origin.precision, origin.backend, origin.artifact_sha256 and f"sha256 {origin.artifact_sha256[:12]}"]
    return ", ".join([f"{origin.model} on {evaluation.data} ({evaluation.images} images)", *(k for k in known if k)])


def _notes(evaluation: Evaluation) -> list[str]:
    notes = ["Per cent. AP, AR: COCO's, IoU 0.50 to 0.95. S, M, L: objects below 32^2, up to 96^2, above 96^2 pixels."]
    if evaluation.skipped:
        notes.append(f"{len(evaluation.skipped)} images could not be read and are in no figure.")
    if evaluation.origin.random_weights:
        notes.append("These are random weights: the figures mean nothing.")
    return notes


def precision_table(evaluation: Evaluation) -> Table:
    """COCO's figures, one line."""
    ap = evaluation.precision
    figures = {
        "AP": ap.ap,
        "AP50": ap.ap50,
        "AP75": ap.ap75,
        "AP S": ap.ap_s,
        "AP M": ap.ap_m,
        "AP L": ap.ap_l,
        "AR 1": ap.ar_1,
        "AR 10": ap.ar_10,
        "AR 100": ap.ar_100,
        "AR S": ap.ar_s,
        "AR M": ap.ar_m,
        "AR L": ap.ar_l,
    }
    table = Table(_title(evaluation), [Column(name) for name in figures], notes=_notes(evaluation))
    table.add(*map(percent, figures.values()))
    return table


def error_table(evaluation: Evaluation) -> Table:
    """Right and wrong detections: in all, by size, and by category, those with the most objects first."""
    columns = [
        *(Column("", numeric=False), Column("AP"), Column("TP"), Column("FP"), Column("FN")),
        *(Column("precision"), Column("recall"), Column("F1")),
        *(Column(name) for name in ("duplicate", "class confusion", "localisation", "background")),
    ]
    note = f"At IoU {IOU:g} and confidence {CONFIDENCE:g}; the last four columns say what the FP got wrong."
    table = Table("Right and wrong", columns, notes=[note])

    def add(name: str, ap: float | None, counts: ErrorCounts) -> None:
        ratios = (percent(ratio) for ratio in (counts.precision, counts.recall, counts.f1))
        table.add(name, percent(ap), counts.tp, counts.fp, counts.fn, *ratios, *counts.wrong.values())

    precision = evaluation.precision
    add("all", precision.ap, evaluation.errors)
    by_size = {"small": precision.ap_s, "medium": precision.ap_m, "large": precision.ap_l}
    for size, counts in evaluation.errors_by_size.items():
        add(size, by_size[size], counts)
    by_category = evaluation.errors_by_category.items()
    for name, counts in sorted(by_category, key=lambda item: -(item[1].tp + item[1].fn)):
        if counts.tp + counts.fp + counts.fn:
            add(name, precision.by_category[name], counts)
    return table
