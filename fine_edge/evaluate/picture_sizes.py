"""Compare the sizes of pictures with the sizes in their labels, before any picture is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fine_edge import console
from fine_edge.errors import DataError, ImageError
from fine_edge.evaluate.coco_data import CocoData, Doubles, Ints, Truth
from fine_edge.evaluate.matching import by_image
from fine_edge.evaluate.segment_data import Data
from fine_edge.images import PictureSize, picture_size
from fine_edge.text import printable

_READERS = 4
_NAMED = 3
# Rounding may push a label at the border of its picture outside by this much.
_SLACK_PX = 1.0
# How far a box may reach, in sides of its picture; corners read as sizes, and labels of a larger picture, reach
# further.
_FAR = 1.1
_SWAPPED = (
    "give the pictures as they lay when they were labelled; if only the numbers are swapped, correct them in the labels"
)
_TURNED = "take the orientation out of the files, so that they lie as they were labelled, or label them upright"


@dataclass(frozen=True)
class _Picture:
    """One image of the data set: its size, and the size that its labels state, if any."""

    image_id: int
    name: str
    size: PictureSize
    labelled_hw: tuple[int, int] | None

    @property
    def contradicts(self) -> bool:
        """Return whether the labels state another size than the picture has."""
        return self.labelled_hw is not None and self.labelled_hw != self.size.upright_hw

    @property
    def labelled_lying(self) -> bool:
        """Return whether the labels fit the pixels as stored, before EXIF turns them upright."""
        return self.contradicts and self.labelled_hw == self.size.stored_hw

    @property
    def labelled_swapped(self) -> bool:
        """Return whether the labels state the picture's height as its width."""
        return self.contradicts and self.labelled_hw == self.size.upright_hw[::-1]


def require_labelled_sizes(data: Data, folder: Path) -> None:
    """Compare the size of each picture with the size that its labels state, or else with the places of its boxes.

    Sizes are those of the upright pictures. Pictures that cannot be read are skipped here; reading them reports them.

    Raises:
        DataError: when pictures contradict their labels; the message counts them and names three.
    """
    with console.status("comparing the pictures' sizes with their labels"):
        pictures = list(_pictures(data, folder))
    of = f"of {len(data.images)} pictures"
    wrong = [one for one in pictures if one.contradicts]
    if wrong:
        shown = "; ".join(
            f"{one.name} is {_size(one.size.upright_hw)}, not {_size(one.labelled_hw)}" for one in wrong[:_NAMED]
        )
        what = f"{len(wrong)} {of} are not of the size that {data.path} says: {shown}"
        if any(one.labelled_lying for one in wrong):
            raise DataError(f"{what}; their EXIF orientation turns them", where=folder, hint=_TURNED)
        if all(one.labelled_swapped for one in wrong):
            raise DataError(f"{what}; height and width are swapped", where=folder, hint=_SWAPPED)
        raise DataError(what, where=folder, hint="give the pictures that were labelled")
    if isinstance(data, CocoData):
        _check_boxes_inside(data, pictures, of, folder)
    _warn_of_turned(pictures)


def _size(height_width: tuple[int, int] | None) -> str:
    height, width = height_width or (0, 0)
    return f"{width}x{height}"


def _pictures(data: Data, folder: Path) -> Iterator[_Picture]:
    labelled = _labelled_sizes(data)

    def read(entry: tuple[int, str]) -> _Picture | None:
        number, name = entry
        try:
            return _Picture(number, name, picture_size(folder / name), labelled.get(number))
        except ImageError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        yield from filter(None, pool.map(read, data.images.items()))


def _labelled_sizes(data: Data) -> dict[int, tuple[int, int]]:
    """Return height and width by image id; a size of 0, as some tools write, counts as missing."""
    if isinstance(data, CocoData):
        return {number: size for number, size in data.sizes.items() if min(size) > 0}
    return {number: picture_size(path).stored_hw for number, path in data.truths.items()}


def _check_boxes_inside(data: CocoData, pictures: list[_Picture], of: str, folder: Path) -> None:
    """Refuse boxes outside of pictures whose labels state no size, and warn of those in pictures whose labels do.

    Boxes that begin in their picture and reach far out of it only get a warning too: some data sets complete objects
    that the border cuts off.
    """
    corners = data.truth.boxes_xywh[:, :2] + data.truth.boxes_xywh[:, 2:]
    if (corners <= 1).all():
        what = f"{data.path} has no box beyond the first pixel of a picture"
        raise DataError(what, where=folder, hint="give boxes in pixels, not as shares of the picture")
    rows_of = dict(by_image(data.truth.image_ids))
    boxed = [(one, _boxes(data.truth, rows_of[one.image_id])) for one in pictures if one.image_id in rows_of]
    outside = [one for one, boxes in boxed if one.labelled_hw is None and _has_outside(boxes, one.size)]
    if outside:
        what = f"{len(outside)} {of} have boxes of {data.path} that lie outside of them: {_names(outside)}"
        raise DataError(what, where=folder, hint="give the pictures that were labelled")
    odd = [one for one, boxes in boxed if _has_outside(boxes, one.size) or _has_far_end(boxes, one.size)]
    if odd:
        console.warn(
            f"{len(odd)} {of} have boxes that lie outside of them or reach far out: {_names(odd)}; boxes are x, y,"
            " width, height in pixels of these pictures"
        )


def _boxes(truth: Truth, rows: Ints) -> Doubles:
    """Return the boxes (N, 4) x, y, width, height of these rows, without crowds."""
    return truth.boxes_xywh[rows[~truth.crowd[rows]]]


def _has_outside(boxes_xywh: Doubles, size: PictureSize) -> bool:
    """Return whether one of the boxes lies wholly outside."""
    left, top, width, height = boxes_xywh.T
    beyond = (left >= size.width + _SLACK_PX) | (top >= size.height + _SLACK_PX)
    before = (left + width <= -_SLACK_PX) | (top + height <= -_SLACK_PX)
    return bool((beyond | before).any())


def _has_far_end(boxes_xywh: Doubles, size: PictureSize) -> bool:
    """Return whether one of the boxes ends far beyond the right or lower border."""
    left, top, width, height = boxes_xywh.T
    return bool(((left + width > size.width * _FAR) | (top + height > size.height * _FAR)).any())


def _names(pictures: list[_Picture]) -> str:
    return ", ".join(printable(one.name) for one in pictures[:_NAMED])


def _warn_of_turned(pictures: list[_Picture]) -> None:
    """Warn when EXIF turns pictures and the labels state no size that shows whether they fit the upright ones."""
    turned = [one for one in pictures if one.size.orientation != 1]
    if turned and not any(one.labelled_hw and one.size.stored_hw != one.size.upright_hw for one in turned):
        console.warn(
            f"{len(turned)} pictures are turned upright as their EXIF orientation says; their labels must be of the"
            f" upright pictures: {_names(turned)}"
        )
