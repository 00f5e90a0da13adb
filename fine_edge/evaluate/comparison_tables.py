"""A comparison in tables, the same for terminal and page."""

from __future__ import annotations

from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.matching import CONFIDENCE, IOU
from fine_edge.evaluate.render import percent
from fine_edge.table import Column, Table

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
    """Difference of two fractions in points; ``None`` where one is of nothing."""
    return None if a is None or b is None or min(a, b) < 0 else f"{100 * (b - a):+.1f}"


def _columns(comparison: Comparison, first: str) -> list[Column]:
    return [Column(first, numeric=False), *(Column(name) for name in comparison.names), Column("difference")]


def precision_table(comparison: Comparison) -> Table:
    """COCO's figures of both, their difference, and B's relative gain."""
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


def error_table(comparison: Comparison) -> Table:
    """The paper's Table 5, and what the false positives got wrong."""
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
    """AP by category, those that differ most first."""
    a, b = (side.evaluation.boxes.by_category for side in (comparison.a, comparison.b))
    known = [name for name in a if min(a[name], b[name]) >= 0]
    known.sort(key=lambda name: -abs(b[name] - a[name]))
    left = len(known) - _MOST_CATEGORIES
    notes = [f"{left} categories that differ less are left out."] if left > 0 else []
    table = Table("AP by category", _columns(comparison, "category"), notes=notes)
    for name in known[:_MOST_CATEGORIES]:
        table.add(name, percent(a[name]), percent(b[name]), _change(a[name], b[name]))
    return table
