"""Show evaluations as tables."""

from __future__ import annotations

from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.matching import CONFIDENCE, IOU, ErrorCounts
from fine_edge.evaluate.segments import SegmentEvaluation
from fine_edge.evaluate.semantic import SemanticFigures
from fine_edge.table import Column, Table

RANDOM = "These are random weights: the figures mean nothing."


def percent(value: float | None) -> str | None:
    """Return a fraction in per cent, as AP is usually printed; ``None`` where it is not defined."""
    return None if value is None or value < 0 else f"{100 * value:.1f}"


def _title(evaluation: Evaluation | SegmentEvaluation) -> str:
    origin = evaluation.origin
    details = [origin.precision, origin.backend, origin.artifact_sha256 and f"sha256 {origin.artifact_sha256[:12]}"]
    if origin.preprocessed == "exact":
        details.append("exact preprocessing")
    return ", ".join([f"{origin.model} on {evaluation.data} ({evaluation.images} images)", *filter(None, details)])


def _notes(evaluation: Evaluation | SegmentEvaluation, meaning: str) -> list[str]:
    notes = [f"Per cent. {meaning}"]
    if evaluation.skipped:
        notes.append(f"{len(evaluation.skipped)} images could not be read and are in no figure.")
    if evaluation.origin.random_weights:
        notes.append(RANDOM)
    return notes


_AP_MEANING = "AP, AR: COCO's, IoU 0.50 to 0.95. S, M, L: objects below 32^2, up to 96^2, above 96^2 pixels."
_FIGURES = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "AP S": "ap_s",
    "AP M": "ap_m",
    "AP L": "ap_l",
    "AR 1": "ar_1",
    "AR 10": "ar_10",
    "AR 100": "ar_100",
    "AR S": "ar_s",
    "AR M": "ar_m",
    "AR L": "ar_l",
}


def precision_table(evaluation: Evaluation) -> Table:
    """Return COCO's figures, one row for boxes and one for masks where there are any."""
    columns = [Column("of", numeric=False), *(Column(name) for name in _FIGURES)]
    table = Table(_title(evaluation), columns, notes=_notes(evaluation, _AP_MEANING))
    for name, found in (("boxes", evaluation.boxes), ("masks", evaluation.masks)):
        if found:
            table.add(name, *(percent(getattr(found, figure)) for figure in _FIGURES.values()))
    return table


def error_table(evaluation: Evaluation) -> Table:
    """Return right and wrong detections: all, by size, and by category, those with the most objects first."""
    columns = [
        *(Column("", numeric=False), Column("AP"), Column("TP"), Column("FP"), Column("FN")),
        *(Column("precision"), Column("recall"), Column("F1")),
        *(Column(name, group="FP") for name in ("duplicate", "class confusion", "localisation", "background")),
    ]
    note = f"At IoU {IOU:g} and confidence {CONFIDENCE:g}; the last four columns say what the FP got wrong."
    table = Table("Right and wrong", columns, notes=[note])

    def add(name: str, ap: float | None, counts: ErrorCounts) -> None:
        ratios = (percent(ratio) for ratio in (counts.precision, counts.recall, counts.f1))
        table.add(name, percent(ap), counts.tp, counts.fp, counts.fn, *ratios, *counts.wrong.values())

    boxes = evaluation.boxes
    add("all", boxes.ap, evaluation.errors)
    by_size = {"small": boxes.ap_s, "medium": boxes.ap_m, "large": boxes.ap_l}
    for size, counts in evaluation.errors_by_size.items():
        add(size, by_size[size], counts)
    by_category = evaluation.errors_by_category.items()
    for name, counts in sorted(by_category, key=lambda item: -(item[1].tp + item[1].fn)):
        if counts.tp + counts.fp + counts.fn:
            add(name, boxes.by_category[name], counts)
    return table


def segment_table(evaluation: SegmentEvaluation) -> Table:
    """Return the figures of a segmenter: all, and by category."""
    figures = evaluation.figures
    first = Column("", numeric=False)
    if isinstance(figures, SemanticFigures):
        notes = _notes(evaluation, "IoU: TP / (TP + FP + FN) of pixels over all images; mIoU: its mean.")
        table = Table(_title(evaluation), [first, Column("IoU"), Column("pixel accuracy")], notes=notes)
        table.add("all", percent(figures.miou), percent(figures.pixel_accuracy))
        for name, value in figures.iou_by_category.items():
            table.add(name, percent(value), None)
        return table
    notes = _notes(evaluation, "PQ = SQ x RQ by category, then the mean.")
    table = Table(_title(evaluation), [first, Column("PQ"), Column("SQ"), Column("RQ")], notes=notes)
    table.add("all", percent(figures.pq), percent(figures.sq), percent(figures.rq))
    for name, value in figures.pq_by_category.items():
        if value >= 0:
            table.add(name, percent(value), None, None)
    return table
