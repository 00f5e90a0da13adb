"""Show evaluations and comparisons of them as tables."""

from __future__ import annotations

from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.matching import CONFIDENCE, IOU, ErrorCounts
from fine_edge.evaluate.segments import SegmentEvaluation
from fine_edge.evaluate.semantic import SemanticFigures
from fine_edge.table import Column, Table


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
        notes.append("These are random weights: the figures mean nothing.")
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


_TITLES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_s": "AP S",
    "ap_m": "AP M",
    "ap_l": "AP L",
    "ar_100": "AR 100",
}
_MOST_CATEGORIES = 20


def _change(a: float | None, b: float | None) -> str | None:
    """Return the difference of two fractions in points; ``None`` where one is not defined."""
    return None if a is None or b is None or min(a, b) < 0 else f"{100 * (b - a):+.1f}"


def _columns(comparison: Comparison, first: str) -> list[Column]:
    return [Column(first, numeric=False), *(Column(name) for name in comparison.names), Column("difference")]


def precision_change_table(comparison: Comparison) -> Table:
    """Return COCO's figures of both, their difference, and B's relative gain."""
    ap = comparison.ap
    notes = [
        f"On {len(comparison.data.images)} images of {comparison.data.path.name}. Per cent; difference in points.",
        f"AP: difference {100 * ap.value:+.2f}, 95 % interval {100 * ap.low:+.2f} .. {100 * ap.high:+.2f}, paired"
        " bootstrap over images: " + ("more than chance." if ap.low > 0 or ap.high < 0 else "may be chance."),
    ]
    if any(side.evaluation.origin.random_weights for side in (comparison.a, comparison.b)):
        notes.append("These are random weights: the figures mean nothing.")
    table = Table(
        f"{comparison.names[1]} against {comparison.names[0]}",
        [*_columns(comparison, ""), Column("relative gain")],
        notes=notes,
    )
    for metric, title in _TITLES.items():
        a, b = comparison.figures(metric)
        gain = comparison.gain(metric)
        table.add(title, percent(a), percent(b), _change(a, b), None if gain is None else f"{100 * gain:+.1f} %")
    return table


def error_change_table(comparison: Comparison) -> Table:
    """Return the paper's Table 5, and the kinds of false positives."""
    note = f"At IoU {IOU:g} and confidence {CONFIDENCE:g}."
    table = Table("Right and wrong", _columns(comparison, ""), notes=[note])
    a, b = (side.evaluation.errors.to_json() for side in (comparison.a, comparison.b))
    for metric in ("tp", "fp", "fn"):
        table.add(metric.upper(), a[metric], b[metric], f"{b[metric] - a[metric]:+d}")
    for metric, title in {"precision": "precision", "recall": "recall", "f1": "F1"}.items():
        table.add(title, percent(a[metric]), percent(b[metric]), _change(a[metric], b[metric]))
    for kind, count in a["wrong"].items():
        table.add(f"FP: {kind.replace('_', ' ')}", count, b["wrong"][kind], f"{b['wrong'][kind] - count:+d}")
    return table


def category_table(comparison: Comparison) -> Table:
    """Return AP by category, those that differ most first."""
    a, b = (side.evaluation.boxes.by_category for side in (comparison.a, comparison.b))
    categories = [name for name in a if min(a[name], b[name]) >= 0]
    categories.sort(key=lambda name: -abs(b[name] - a[name]))
    left = len(categories) - _MOST_CATEGORIES
    notes = [f"{left} categories that differ less are left out."] if left > 0 else []
    table = Table("AP by category", _columns(comparison, "category"), notes=notes)
    for name in categories[:_MOST_CATEGORIES]:
        table.add(name, percent(a[name]), percent(b[name]), _change(a[name], b[name]))
    return table
