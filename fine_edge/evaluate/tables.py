"""Show evaluations, and what changes between two of them, as tables."""

from __future__ import annotations

from fine_edge.evaluate.coco_data import Kind
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.matching import CONFIDENCE, IOU, ErrorCounts
from fine_edge.evaluate.resampling import Difference
from fine_edge.evaluate.segment_comparison import ImageChange, SegmentComparison
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


# Show what changes between two evaluations as tables.

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


def _columns(comparison: Comparison | SegmentComparison, first: str) -> list[Column]:
    return [Column(first, numeric=False), *(Column(name) for name in comparison.names), Column("difference")]


def interval(found: Difference | None, *, scale: float = 100.0, digits: int = 1) -> str | None:
    """Return an interval in points, or in units of ``1 / scale``; ``None`` where there is none."""
    return None if found is None else f"{scale * found.low:+.{digits}f} .. {scale * found.high:+.{digits}f}"


def verdict(title: str, found: Difference) -> str:
    """Return a difference with its interval as a sentence."""
    return (
        f"{title}: difference {100 * found.value:+.2f}, 95 % interval {interval(found, digits=2)}, paired bootstrap"
        f" over images: {'more than chance' if found.is_clear else 'may be chance'}."
    )


_OF: dict[Kind, tuple[str, str]] = {"bbox": ("", "boxes"), "segm": ("mask ", "masks")}


def precision_change_table(comparison: Comparison) -> Table:
    """Return COCO's figures of both, by boxes and by masks, their difference, and B's relative gain."""
    notes = [
        f"On {len(comparison.data.images)} images of {comparison.data.path.name}. Per cent; difference in points.",
        *(verdict(f"{_OF[kind][0]}AP", found) for kind, found in comparison.ap.items()),
    ]
    if any(side.evaluation.origin.random_weights for side in (comparison.a, comparison.b)):
        notes.append(RANDOM)
    table = Table(
        f"{comparison.names[1]} against {comparison.names[0]}",
        [*_columns(comparison, ""), Column("relative gain")],
        notes=notes,
    )
    for kind in comparison.kinds:
        for metric, title in _TITLES.items():
            a, b = comparison.figures(metric, kind)
            gain = comparison.gain(metric, kind)
            shown = None if gain is None else f"{100 * gain:+.1f} %"
            table.add(f"{_OF[kind][0]}{title}", percent(a), percent(b), _change(a, b), shown)
    return table


def error_change_table(comparison: Comparison, kind: Kind = "bbox") -> Table:
    """Return the paper's Table 5 and the kinds of false positives, by boxes or by masks, with intervals."""
    notes = [f"By {_OF[kind][1]}, at IoU {IOU:g} and confidence {comparison.threshold:g}; 95 % intervals over images."]
    found = comparison.mask_changes if kind == "segm" else None
    if found and found.means:
        notes.append(f"Mask IoU of {len(found.objects)} objects that both find: {_ious(*found.means, found.mean)}.")
    columns = [*_columns(comparison, ""), Column("95 % interval")]
    table = Table(f"Right and wrong{' masks' if kind == 'segm' else ''}", columns, notes=notes)
    a, b = (side.errors(kind).to_json() for side in (comparison.a, comparison.b))
    changes, images = comparison.errors[kind], len(comparison.data.images)
    for metric in ("tp", "fp", "fn"):
        shown = interval(changes[metric], scale=1, digits=0)
        table.add(metric.upper(), a[metric], b[metric], f"{b[metric] - a[metric]:+d}", shown)
    for metric in ("fp", "fn"):
        each = [one[metric] / images for one in (a, b)]
        shown = interval(changes[metric], scale=1 / images, digits=3)
        table.add(f"{metric.upper()} per image", *(f"{one:.3f}" for one in each), f"{each[1] - each[0]:+.3f}", shown)
    for metric, title in {"precision": "precision", "recall": "recall", "f1": "F1"}.items():
        change = _change(a[metric], b[metric])
        table.add(title, percent(a[metric]), percent(b[metric]), change, interval(changes[metric]))
    for name, counted in a["wrong"].items():
        other, shown = b["wrong"][name], interval(changes[name], scale=1, digits=0)
        table.add(f"FP: {name.replace('_', ' ')}", counted, other, f"{other - counted:+d}", shown)
    return table


def _ious(a: float, b: float, mean: Difference | None) -> str:
    change = f", difference {mean.value:+.3f}, 95 % interval {interval(mean, scale=1, digits=3)}" if mean else ""
    return f"{a:.3f} and {b:.3f}{change}"


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


_SEGMENT_TITLES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "pq": "PQ", "sq": "SQ", "rq": "RQ"}
_MOST_IMAGES = 10


def segment_change_table(comparison: SegmentComparison) -> Table:
    """Return mean IoU or panoptic quality of both, all and by category, with intervals; what changes most first."""
    main = comparison.differences[comparison.main]
    notes = [f"On {len(comparison.data.images)} images of {comparison.data.path.name}. Per cent; difference in points."]
    if main:
        notes.append(verdict(_SEGMENT_TITLES[comparison.main], main))
    if any(side.origin.random_weights for side in (comparison.a, comparison.b)):
        notes.append(RANDOM)
    title = f"{comparison.names[1]} against {comparison.names[0]}"
    table = Table(title, [*_columns(comparison, ""), Column("95 % interval")], notes=notes)
    for name, found in comparison.differences.items():
        _add_change(table, _SEGMENT_TITLES[name], comparison.figure(name), found)
    changed = {name: found for name, found in comparison.by_category.items() if found}
    shown = sorted(changed, key=lambda name: -abs(changed[name].value))
    for name in shown[:_MOST_CATEGORIES]:
        _add_change(table, name, comparison.of_category(name), changed[name])
    if len(shown) > _MOST_CATEGORIES:
        notes.append(f"{len(shown) - _MOST_CATEGORIES} categories that differ less are left out.")
    return table


def _add_change(table: Table, title: str, sides: tuple[float, float], found: Difference | None) -> None:
    a, b = sides
    table.add(title, percent(a), percent(b), _change(a, b), interval(found))


def image_change_table(comparison: SegmentComparison) -> Table:
    """Return the images that changed most, with the confusion or the category that changed most in each."""
    what = "pixels" if comparison.is_semantic else "segments"
    notes = [
        f"Right: share of the labelled {what}{'' if comparison.is_semantic else ' that are matched'}, per cent."
        f" Changed: at least so many of the {what}, from the counts of each image.",
    ]
    changed = [one for one in comparison.by_image if one.moved]
    if not changed:
        notes.append("No image has other counts.")
    columns = [
        *(Column("image", numeric=False), *(Column(f"right: {name}") for name in comparison.names)),
        *(Column("changed"), Column("largest change", numeric=False, below=True)),
    ]
    table = Table("Images that change most", columns, notes=notes)
    for one in changed[:_MOST_IMAGES]:
        row = (percent(one.a), percent(one.b), f"{100 * one.moved / max(1, one.of):.2f} %", kind_text(one, what))
        table.add(comparison.data.images[one.image_id], *row)
    return table


def kind_text(one: ImageChange, what: str) -> str | None:
    """Return the confusion or the category whose count changed most, with its counts."""
    if one.kind is None:
        return None
    return f"{one.kind}: {one.kind_a:,} to {one.kind_b:,} {what if what == 'pixels' else 'matched'}"


def segment_drift_table(comparison: SegmentComparison, most_drop: float | None) -> Table:
    """Return how much of the images changed, with the drop of the figure that decides and its limit in the notes."""
    what = "pixels" if comparison.is_semantic else "matched segments"
    notes = [f"Share of an image's labelled {what.split()[-1]} that changed, at least: from the counts of each image."]
    columns = [Column("", numeric=False), Column("median"), Column("99 %"), Column("largest")]
    table = Table("Drift", columns, notes=notes)
    table.add(f"{what} (%)", *(f"{100 * value:.3f}" for value in comparison.moved_quantiles()))
    notes.append(f"{comparison.moved_share:.3%} of all.")
    notes.append(drop_note(_SEGMENT_TITLES[comparison.main], comparison.drop, most_drop))
    return table


def drop_note(title: str, drop: float | None, most: float | None) -> str:
    """Return a drop in points and its limit as a sentence."""
    shown = (
        "not defined: nothing is labelled, or nothing that the reference finds is right"
        if drop is None
        else f"{drop:+.3f} points"
    )
    return f"{title} drop: {shown}{'' if most is None else f', at most {most:g} allowed'}."
