"""What a network finds in pictures: they are read ahead, grouped into batches and decoded beside the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fine_edge.contract import Contract
from fine_edge.decode import Prediction, from_network, require_finite
from fine_edge.errors import ImageError
from fine_edge.feed import Feed
from fine_edge.images import read_image
from fine_edge.preprocess import Placement
from fine_edge.runners.base import Array, Runner
from fine_edge.segments import MergeConfig

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
