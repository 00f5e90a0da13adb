"""Compare two evaluations of segmenters by the counts of each image: mean IoU of pixels, or panoptic quality.

How many pixels or segments changed between A and B is known from below: what the counts of one image against its labels
differ by. The maps beside the counts are read for the images that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge.errors import DataError
from fine_edge.evaluate import panoptic, semantic
from fine_edge.evaluate.coco_data import Doubles, Ints
from fine_edge.evaluate.evaluation import Origin
from fine_edge.evaluate.matching import by_image
from fine_edge.evaluate.panoptic import PanopticFigures
from fine_edge.evaluate.resampling import RESAMPLES, Difference, differences
from fine_edge.evaluate.segment_data import SegmentData
from fine_edge.evaluate.segments import figures_of
from fine_edge.evaluate.semantic import SemanticFigures
from fine_edge.evaluate.sides import Counts, StoredEvaluation, names_of

_SEMANTIC, _PANOPTIC = ("miou", "pixel_accuracy"), ("pq", "sq", "rq")
_NO_CATEGORY = "no category"


@dataclass(frozen=True)
class SegmentSide:
    """One side.

    Attributes:
        origin: what was evaluated.
        figures: on the images of both sides.
        counts: by image; ``journal`` is their file, beside which the maps lie.
    """

    origin: Origin
    figures: SemanticFigures | PanopticFigures
    counts: Counts
    journal: Path


@dataclass(frozen=True)
class ImageChange:
    """What changed in one image.

    Attributes:
        a, b: share of the labelled pixels that are right, or of the labelled segments that are matched.
        moved: least number of pixels that changed class, or of matched segments that changed.
        of: number of labelled pixels or segments.
        kind: the confusion, or the category, whose count changed most; ``None`` where none did.
        kind_a, kind_b: its pixels, or its matched segments.
    """

    image_id: int
    a: float
    b: float
    moved: int
    of: int
    kind: str | None
    kind_a: int = 0
    kind_b: int = 0


@dataclass(frozen=True)
class SegmentComparison:
    """Both evaluations on the images that both could read.

    Attributes:
        differences: of each figure of all categories, B minus A; ``None`` where it is not defined.
        by_category: of the IoU, or the PQ, of each category.
        by_image: what changed in each image, those that changed most first.
        images: folder of the pictures, where one of the evaluations names it.
        pictures: sha256 of the picture files by image id.
    """

    data: SegmentData
    a: SegmentSide
    b: SegmentSide
    differences: dict[str, Difference | None]
    by_category: dict[str, Difference | None]
    by_image: tuple[ImageChange, ...]
    images: Path | None
    pictures: dict[int, str]

    @property
    def names(self) -> tuple[str, str]:
        """Return a name for each side; equal names get (A) and (B)."""
        return names_of(self.a.origin, self.b.origin)

    @property
    def is_semantic(self) -> bool:
        """Return whether pixels are compared, not segments."""
        return self.data.segments is None

    @property
    def main(self) -> str:
        """Return the name of the figure that decides."""
        return _SEMANTIC[0] if self.is_semantic else _PANOPTIC[0]

    @property
    def drop(self) -> float | None:
        """Return that figure of A minus that of B, in points; ``None`` where it is not defined, or zero in A."""
        a, b = self.figure(self.main)
        return 100 * (a - b) if a > 0 <= b else None

    @property
    def moved_share(self) -> float:
        """Return the least share of the labelled pixels or segments that changed."""
        return sum(one.moved for one in self.by_image) / max(1, sum(one.of for one in self.by_image))

    def figure(self, name: str) -> tuple[float, float]:
        """Return a figure of both sides as fractions; -1 means that it is not defined."""
        return float(getattr(self.a.figures, name)), float(getattr(self.b.figures, name))

    def of_category(self, name: str) -> tuple[float, float]:
        """Return the IoU or PQ of a category of both sides."""
        a, b = (categories_of_figures(side.figures)[name] for side in (self.a, self.b))
        return a, b

    def moved_quantiles(self) -> tuple[float, float, float]:
        """Return median, 99th percentile and maximum over images of the share that changed."""
        shares = np.array([one.moved / max(1, one.of) for one in self.by_image])
        middle, rare = np.quantile(shares, [0.5, 0.99], method="inverted_cdf")
        return float(middle), float(rare), float(shares.max())

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        names = self.data.images
        return {
            "task": "semantic" if self.is_semantic else "panoptic",
            **{key: {**asdict(side.origin), **asdict(side.figures)} for key, side in (("a", self.a), ("b", self.b))},
            "data": self.data.path.name,
            "data_sha256": self.data.sha256,
            "images": len(names),
            "difference": {name: one and one.to_json() for name, one in self.differences.items()},
            "difference_by_category": {name: one and one.to_json() for name, one in self.by_category.items()},
            "changed_at_least": self.moved_share,
            "by_image": [
                {"image": names[one.image_id], **{key: value for key, value in vars(one).items() if key != "image_id"}}
                for one in self.by_image
            ],
        }


def categories_of_figures(figures: SemanticFigures | PanopticFigures) -> dict[str, float]:
    """Return IoU or PQ by category name; -1 means that it is not defined."""
    return figures.iou_by_category if isinstance(figures, SemanticFigures) else figures.pq_by_category


def compare_segments(
    a: StoredEvaluation,
    b: StoredEvaluation,
    *,
    resamples: int = RESAMPLES,
    advance: Callable[[], None] = lambda: None,
) -> SegmentComparison:
    """Compare two evaluations of segmenters on the images that both could read.

    Raises:
        DataError: when the evaluations are of detectors, or neither side has a pixel or a segment of any category.
    """
    data = a.data
    if not (isinstance(data, SegmentData) and isinstance(a.found, Counts) and isinstance(b.found, Counts)):
        raise DataError("are of boxes, not of segments", where=f"{a.path} and {b.path}", hint="give segmenters'")
    counts = semantic.counts if data.segments is None else panoptic.counts
    ids = sorted(data.images)
    first, second = (counts(ids, data.categories, one.image_ids, one.rows) for one in (a.found, b.found))
    if not _finds(first, data) and not _finds(second, data):
        what = "neither has a pixel or a segment of any category"
        raise DataError(what, where=f"{a.path} and {b.path}", hint="evaluate a model that finds what the data holds")

    # Counts add up over images, so a resampled set of images is a weighted sum of their counts.
    def statistic(times: Ints) -> Doubles:
        sums = (np.tensordot(times, counted, axes=1) for counted in (first, second))
        before, after = (_figures(one, data) for one in sums)
        return after - before

    found = differences(statistic, len(ids), resamples=resamples, advance=advance)
    names = _SEMANTIC if data.segments is None else _PANOPTIC
    rows = [dict(by_image(one.image_ids)) for one in (a.found, b.found)]
    none = np.array([], dtype=np.int64)
    changes = [
        _change(image, a.found.rows[rows[0].get(image, none)], b.found.rows[rows[1].get(image, none)], data)
        for image in ids
    ]
    return SegmentComparison(
        data,
        SegmentSide(a.origin, figures_of(a.found.rows, data), a.found, a.kept),
        SegmentSide(b.origin, figures_of(b.found.rows, data), b.found, b.kept),
        dict(zip(names, found[: len(names)], strict=True)),
        dict(zip(data.categories.values(), found[len(names) :], strict=True)),
        tuple(sorted(changes, key=lambda one: (-one.moved / max(1, one.of), one.image_id))),
        a.folder or b.folder,
        a.pictures | b.pictures,
    )


def _finds(counted: Doubles, data: SegmentData) -> bool:
    """Return whether a side finds anything, from pixels (..., 3) or segments (..., 4) by image and category."""
    return bool(counted[..., 2].any() if data.segments is None else counted[..., 1:3].any())


def _mean(values: Doubles) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _figures(counted: Doubles, data: SegmentData) -> Doubles:
    """Return the figures of all categories, then those of each, of sums of counts (K, columns)."""
    if data.segments is None:
        by_category = semantic.ious(counted)
        right, labelled = counted[:, 0].sum(), counted[:, 1].sum()
        return np.array([_mean(by_category), right / labelled if labelled else np.nan, *by_category])
    quality = panoptic.qualities(counted)
    return np.array([*(_mean(column) for column in quality.T), *quality[:, 0]])


def _change(image_id: int, a: Doubles, b: Doubles, data: SegmentData) -> ImageChange:
    """Return what changed in one image, from the rows of counts of both sides."""
    if data.segments is None:
        return _confusion_change(image_id, a, b, data.categories)
    return _match_change(image_id, a, b, data.categories)


def _confusion_change(image_id: int, a: Doubles, b: Doubles, names: dict[int, str]) -> ImageChange:
    first, second = ({(int(true), int(found)): int(pixels) for true, found, pixels in rows} for rows in (a, b))
    changes = {pair: second.get(pair, 0) - first.get(pair, 0) for pair in first.keys() | second.keys()}
    wrong = [pair for pair, change in changes.items() if pair[0] != pair[1] and change]
    most = max(wrong, key=lambda pair: (abs(changes[pair]), pair), default=(0, 0))
    return ImageChange(
        image_id,
        _right(first) / max(1, sum(first.values())),
        _right(second) / max(1, sum(second.values())),
        moved=sum(change for change in changes.values() if change > 0),
        of=sum(first.values()),
        kind=" taken for ".join(names.get(one, _NO_CATEGORY) for one in most) if wrong else None,
        kind_a=first.get(most, 0) if wrong else 0,
        kind_b=second.get(most, 0) if wrong else 0,
    )


def _right(confusion: dict[tuple[int, int], int]) -> int:
    return sum(pixels for (true, found), pixels in confusion.items() if true == found)


def _match_change(image_id: int, a: Doubles, b: Doubles, names: dict[int, str]) -> ImageChange:
    first, second = ({int(category): int(tp) for category, _, tp, _, _ in rows} for rows in (a, b))
    of = int(a[:, [2, 4]].sum())  # TP and FN: the labelled segments
    changes = {one: second.get(one, 0) - first.get(one, 0) for one in first.keys() | second.keys()}
    most = max(changes, key=lambda one: abs(changes[one]), default=None)
    changed = most is not None and changes[most] != 0
    return ImageChange(
        image_id,
        sum(first.values()) / max(1, of),
        sum(second.values()) / max(1, of),
        moved=sum(map(abs, changes.values())),
        of=of,
        kind=names.get(most, _NO_CATEGORY) if most is not None and changed else None,
        kind_a=first.get(most, 0) if most is not None and changed else 0,
        kind_b=second.get(most, 0) if most is not None and changed else 0,
    )
