"""Run a detector on all images of a data set, in batches and with progress; an interrupted run goes on where it was.

Stored detections are used again only if everything that they depend on is unchanged: the picture file, whose sha256
stands beside each image's entry, and all else, which :func:`_identity` writes into the journal's first line.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fine_edge import console, machine
from fine_edge.contract import Contract
from fine_edge.decode import Prediction, from_network, require_finite
from fine_edge.errors import DataError, ImageError
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

# What a network finds in pictures: they are read ahead, grouped into batches and decoded beside the network.

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
    feed = Feed(contract.input_hw, contract.preprocessing, exact=exact, many=True)
    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "decode") as decoder:
        read = ahead(_reader(folder, feed), images, readers, max(_AHEAD, 2 * contract.batch))
        inferred = (_infer(batch, contract, runner) for batch in _batches(read, contract.batch))
        for seen in ahead(lambda work: _decode(work, contract), inferred, decoder, 2):
            yield from seen


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
    usable: Callable[[int], bool] = lambda _: True,
) -> ImageRun:
    """Run a model on all images that the journal has no entry of, or an entry of another picture.

    Args:
        opened: the model.
        data: the data set.
        images: folder of its pictures.
        folder: folder of the journal.
        categories: see :func:`fine_edge.evaluate.class_names.categories_of`.
        entry: returns the journal's entry of an image.
        exact: preprocess by the reference.
        usable: whether what is kept beside the journal for an image is there, so that it need not be made again.

    Raises:
        FineEdgeError: when a file cannot be read or written, is broken, or contradicts the labels.
    """
    if not is_folder(images):
        raise DataError("no such folder of images", where=images, hint="give it with --images")
    require_labelled_sizes(data, images)
    path = folder / f"{stem(opened, data, exact=exact)}.jsonl"
    skipped: dict[int, str] = {}
    with Journal(path, _identity(opened, data, categories, exact=exact)) as journal:
        unchanged = _unchanged(journal, data, images)
        done = {number for number in unchanged if usable(number)}
        left = [(number, name) for number, name in data.images.items() if number not in done]
        if changed := len(journal.pictures) - len(unchanged):
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
                # The network's share is told apart, so that a slow disk or decoder shows as such.
                inference_s += seen.inference_s
                bar.advance(task)
            wall_s = time.perf_counter() - start_s
        if inference_s:
            console.remark(
                f"{len(left)} images in {wall_s:.1f} s, {wall_s / inference_s:.2f} times the time of the network alone"
            )
        pictures = {number: journal.pictures[number] for number in data.images if number not in skipped}
        return ImageRun(path, skipped, pictures)
