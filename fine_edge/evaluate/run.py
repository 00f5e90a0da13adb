"""Run a detector on all images of a data set, with progress; an interrupted run goes on where it stopped.

Stored detections are used again only if everything that they depend on is unchanged: the picture file, whose sha256
stands beside each image's entry, and all else, which :func:`_identity` writes into the journal's first line.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from fine_edge import console, machine
from fine_edge.contract import Contract
from fine_edge.decode import Prediction, from_network, require_finite
from fine_edge.errors import DataError, ImageError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.evaluation import Origin
from fine_edge.evaluate.journal import Entry, Journal
from fine_edge.evaluate.picture_sizes import require_labelled_sizes
from fine_edge.evaluate.segment_data import Data
from fine_edge.feed import Feed, Way
from fine_edge.files import file_size, sha256_of
from fine_edge.images import is_folder, read_image
from fine_edge.preprocess import Placement
from fine_edge.runners.base import ROUNDED, Array, Runner
from fine_edge.runners.opened import Opened
from fine_edge.segments import MergeConfig
from fine_edge.text import file_stem

# One thread keeps up with any network that takes longer than decoding a picture, about 10 ms. The second thread serves
# faster networks.
READERS = 2
_AHEAD = 4

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class ReadImage:
    """A picture as the network takes it, and the sha256 of its file; or the error that kept it from being read."""

    image_id: int
    sha256: str = ""
    tensor: NDArray[np.float32] | NDArray[np.uint8] | None = None
    placement: Placement | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class ImageResult:
    """What the network found in one image of ``size`` (height, width), or why the image could not be read.

    Attributes:
        sha256: hash of the picture file.
        inference_s: this image's share of the time of its batch, in the network alone.
    """

    image_id: int
    found: Prediction | None = None
    error: ImageError | None = None
    size: tuple[int, int] | None = None
    inference_s: float = 0.0
    sha256: str = ""


def ahead(
    work: Callable[[Given], Made], items: Iterable[Given], pool: ThreadPoolExecutor, depth: int
) -> Iterator[Made]:
    """Map ``work`` over the items in a pool, in order, at most ``depth`` items ahead of the consumer."""
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _reader(folder: Path, feed: Feed) -> Callable[[tuple[int, str]], ReadImage]:
    def read(entry: tuple[int, str]) -> ReadImage:
        image_id, name = entry
        try:
            picture = read_image(folder / name)
        except ImageError as error:
            return ReadImage(image_id, error=error)
        return ReadImage(image_id, picture.sha256, *feed(picture.pixels, name))

    return read


def _batches(read: Iterable[ReadImage], size: int) -> Iterator[list[ReadImage]]:
    """Group pictures into batches; a picture that cannot be read is a batch of its own."""
    batch: list[ReadImage] = []
    for one in read:
        if one.error:
            yield [one]
            continue
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True)
class _Inferred:
    """A batch and the network's outputs; the outputs are empty where the picture cannot be read."""

    batch: list[ReadImage]
    outputs: dict[str, Array]
    seconds: float = 0.0


def _infer(batch: list[ReadImage], contract: Contract, runner: Runner) -> _Inferred:
    if batch[0].error:
        return _Inferred(batch, {})
    tensors = [one.tensor for one in batch if one.tensor is not None]
    # A graph for one batch is filled with the last picture.
    tensors += [tensors[-1]] * (contract.filled(len(tensors)) - len(tensors))
    feed: dict[str, Array] = {contract.inputs[0].name: np.concatenate(tensors)}
    start_s = time.perf_counter()
    outputs = runner.run(feed)
    return _Inferred(batch, outputs, time.perf_counter() - start_s)


def _decode(inferred: _Inferred, contract: Contract) -> list[ImageResult]:
    require_finite(inferred.outputs, contract)
    seen = []
    for index, one in enumerate(inferred.batch):
        if one.placement is None:
            seen.append(ImageResult(one.image_id, error=one.error))
            continue
        # AP counts all detections however low they score; segments compete for pixels, so weak ones are dropped.
        threshold = MergeConfig().score if contract.task == "panoptic" else 0.0
        found = from_network(inferred.outputs, contract, one.placement, threshold, index)
        size, share_s = (one.placement.height, one.placement.width), inferred.seconds / len(inferred.batch)
        seen.append(ImageResult(one.image_id, found, size=size, inference_s=share_s, sha256=one.sha256))
    return seen


def detect(
    images: Iterable[tuple[int, str]], folder: Path, contract: Contract, runner: Runner, *, exact: bool = False
) -> Iterator[ImageResult]:
    """Yield what the network finds in each image, in order; the results of padding in the last batch are dropped.

    Args:
        images: id and file name below ``folder``.
        folder: folder of the pictures.
        contract: contract of the artifact that ``runner`` runs.
        runner: called from this thread only.
        exact: preprocess by the reference.

    Raises:
        ArtifactError: when the artifact lacks an output that its task needs, or gives NaN or infinities.
        ConfigError: when the artifact takes frames of another size than a picture's.
    """
    feed = Feed(contract.input_hw, contract.preprocessing, exact=exact)
    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "decode") as decoder:
        read = ahead(_reader(folder, feed), images, readers, max(_AHEAD, 2 * contract.batch))
        inferred = (_infer(batch, contract, runner) for batch in _batches(read, contract.batch))
        for seen in ahead(lambda work: _decode(work, contract), inferred, decoder, 2):
            yield from seen


_SHOWN = 8


def plain(name: str) -> str:
    """Return a class name for comparing: one Unicode form, lower case, single spaces in place of ``_`` and ``-``."""
    return " ".join(normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _renamed(pairs: Mapping[str, str], labels: tuple[str, ...], categories: Mapping[int, str]) -> dict[str, str]:
    """Return the given pairs of names in the form of :func:`plain`.

    Raises:
        DataError: when a name is neither in the data set nor in the model.
    """
    sides = (
        (pairs.keys(), set(categories.values()), "category of the data set"),
        (pairs.values(), set(labels), "class of the model"),
    )
    for given, accepted, kind in sides:
        names = {plain(name) for name in accepted}
        if unknown := [name for name in given if plain(name) not in names]:
            raise DataError(
                f"no {kind} is called {_some(unknown)}; there are {_some(sorted(accepted))}",
                where="--same",
                hint="write CATEGORY=CLASS",
            )
    return {plain(theirs): plain(ours) for theirs, ours in pairs.items()}


def map_labels(
    labels: tuple[str, ...],
    categories: Mapping[int, str],
    renamed: Mapping[str, str] | None = None,
    *,
    used: Collection[int] | None = None,
) -> dict[int, int]:
    """Return the data set's category id by the model's class index; classes without a category are left out.

    Args:
        labels: names of the model's classes, by index.
        categories: names of the data set's categories, by id.
        renamed: the model's class name by the data set's category name, where the two differ.
        used: ids of the categories that have objects; ``None`` means all. A category without objects is left out, with
            a remark, where the model has no class for it or another category has taken the class.

    Raises:
        DataError: when a category has no class, or two categories or classes share a name.
    """
    renamed = _renamed(renamed or {}, labels, categories)
    ours = [plain(label) for label in labels]
    wanted = {number: renamed.get(plain(name), plain(name)) for number, name in categories.items()}
    if used is not None:
        wanted = _without_empty(wanted, ours, categories, used)
    if twice := [name for name, count in Counter(wanted.values()).items() if count > 1]:
        raise DataError(f"more than one category is called {_some(twice)}", hint="give each category its own name")
    if twice := [name for name in wanted.values() if ours.count(name) > 1]:
        raise DataError(f"more than one class of the model is called {_some(twice)}")
    unknown = [categories[number] for number, name in wanted.items() if name not in ours]
    if unknown:
        taken = set(wanted.values())
        unused = [label for label, name in zip(labels, ours, strict=True) if name not in taken]
        raise DataError(
            f"the model has no class for {len(unknown)} of {len(categories)} categories: {_some(unknown)};"
            f" its classes without a category: {_some(unused) or 'none'}",
            hint="evaluate on what it was trained for, or name pairs with --same CATEGORY=CLASS",
        )
    return {ours.index(name): number for number, name in wanted.items()}


def _without_empty(
    wanted: dict[int, str], ours: list[str], categories: Mapping[int, str], used: Collection[int]
) -> dict[int, str]:
    """Leave out categories without objects that have no class, such as the root that some labelling tools add."""
    kept = {number: name for number, name in wanted.items() if number in used}
    for number, name in wanted.items():
        if number not in used and name in ours and name not in kept.values():
            kept[number] = name
    if left_out := [categories[number] for number in wanted if number not in kept]:
        console.remark(f"categories without objects and without a class in the model are left out: {_some(left_out)}")
    return {number: name for number, name in wanted.items() if number in kept}


@dataclass(frozen=True)
class ImageRun:
    """The result of running a model on all images.

    Attributes:
        journal: file of the detections or counts, image by image.
        skipped: why images could not be read, by id.
        pictures: sha256 of the picture files by id, of the images that could be read.
    """

    journal: Path
    skipped: dict[int, str]
    pictures: dict[int, str]


def _way(opened: Opened, *, exact: bool) -> Way:
    return Feed(opened.contract.input_hw, opened.contract.preprocessing, exact=exact).way


def origin_of(opened: Opened, *, exact: bool = False) -> Origin:
    """Return where the detections of a model come from: artifact, precision, preprocessing, backend and machine."""
    return Origin(
        model=opened.contract.model,
        artifact_sha256=opened.artifact_sha256,
        onnx_sha256=opened.onnx_sha256,
        precision=opened.precision,
        backend=opened.runner.name,
        random_weights=opened.contract.random_weights,
        machine=machine.describe(),
        preprocessed=_way(opened, exact=exact),
    )


def stem(opened: Opened, data: Data, *, exact: bool = False) -> str:
    """Return the name of an evaluation's files without suffix: model, precision, data set and artifact."""
    rounded = "-rounded" if opened.runner.name == ROUNDED else ""
    rounded += "-exact" if _way(opened, exact=exact) == "exact" else ""
    name = file_stem(data.path.stem)
    return f"{opened.contract.model}.{opened.precision}{rounded}.{name}.{opened.artifact_sha256[:12]}"


def categories_of(contract: Contract, data: Data, same: dict[str, str] | None) -> dict[int, int]:
    """Return the data set's category id by the model's class index; a remark names the classes that do not count.

    Raises:
        DataError: when the model has no class for a category.
    """
    used = set(data.truth.category_ids.tolist()) if isinstance(data, CocoData) else None
    category_of = map_labels(contract.labels, data.categories, same, used=used)
    unused = [label for index, label in enumerate(contract.labels) if index not in category_of]
    if unused:
        more = ", ..." if len(unused) > 4 else ""
        console.remark(f"not counted, because the data set has no such categories: {', '.join(unused[:4])}{more}")
    return category_of


_LIBRARIES = ("pillow", "opencv-python", "opencv-python-headless", "onnxruntime", "tensorrt")


def _identity(opened: Opened, data: Data, categories: dict[int, int], *, exact: bool) -> dict[str, Any]:
    """Return all that decides the result of a picture besides the picture: artifact, contract, data and libraries."""
    contract = opened.contract
    return {
        **{key: value for key, value in asdict(origin_of(opened, exact=exact)).items() if key != "machine"},
        "preprocessing": contract.preprocessing.to_json(),
        "task": contract.task,
        "postprocessed": contract.postprocessed,
        "labels": list(contract.labels),
        "data_sha256": data.sha256,
        "categories": sorted(categories.items()),
        # Decoders, resizing and kernels change between releases.
        "libraries": {name: machine.version(name) for name in _LIBRARIES},
    }


def _unchanged(journal: Journal, data: Data, images: Path) -> set[int]:
    """Return the ids of the images whose picture files are those that the journal's entries were made from."""
    recorded = [(number, images / data.images[number]) for number in journal.pictures if number in data.images]

    def same(entry: tuple[int, Path]) -> bool:
        number, path = entry
        try:
            file_size(path, ImageError)
            return sha256_of(path) == journal.pictures[number]
        except (ImageError, OSError):  # reported when the picture is read for the model
            return False

    with ThreadPoolExecutor(READERS) as pool, console.status("comparing pictures"):
        return {number for (number, _), found in zip(recorded, pool.map(same, recorded), strict=True) if found}


def run_images(
    opened: Opened,
    data: Data,
    images: Path,
    folder: Path,
    categories: dict[int, int],
    entry: Callable[[ImageResult], Entry],
    *,
    exact: bool = False,
) -> ImageRun:
    """Run a model on all images that the journal has no entry of, or an entry of another picture.

    Args:
        opened: the model.
        data: the data set.
        images: folder of its pictures.
        folder: folder of the journal.
        categories: see :func:`categories_of`.
        entry: returns the journal's entry of an image.
        exact: preprocess by the reference.

    Raises:
        FineEdgeError: when a file cannot be read or written, is broken, or contradicts the labels.
    """
    if not is_folder(images):
        raise DataError("no such folder of images", where=images, hint="give it with --images")
    require_labelled_sizes(data, images)
    path = folder / f"{stem(opened, data, exact=exact)}.jsonl"
    skipped: dict[int, str] = {}
    with Journal(path, _identity(opened, data, categories, exact=exact)) as journal:
        done = _unchanged(journal, data, images)
        left = [(number, name) for number, name in data.images.items() if number not in done]
        if changed := len(journal.pictures) - len(done):
            console.remark(f"{changed} pictures have changed since the last run and are evaluated again")
        if done and left:
            console.remark(f"{len(done)} of {len(data.images)} images were evaluated before: {path}")
        with console.progress() as bar:
            task = bar.add_task("images", total=len(data.images), completed=len(done))
            start_s, inference_s = time.perf_counter(), 0.0
            for seen in detect(left, images, opened.contract, opened.runner, exact=exact):
                journal.add(entry(seen))
                if seen.error:
                    skipped[seen.image_id] = str(seen.error)
                inference_s += seen.inference_s
                bar.advance(task)
            wall_s = time.perf_counter() - start_s
        if inference_s:
            console.remark(
                f"{len(left)} images in {wall_s:.1f} s, {wall_s / inference_s:.2f} times the time of the network alone"
            )
        pictures = {number: journal.pictures[number] for number in data.images if number not in skipped}
        return ImageRun(path, skipped, pictures)
