"""Pictures to detections: decoding and preprocessing, inference, and decoding of the outputs, side by side.

However many images there are, only a few are in memory: each stage waits where the next one is behind.
"""

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
from fine_edge.errors import ImageError
from fine_edge.findings import Findings, from_network, require_finite
from fine_edge.images import read_image
from fine_edge.preprocess import Placement, preprocess
from fine_edge.runners.base import Array, Runner
from fine_edge.segments import MergeConfig

# One thread keeps up with any network that takes longer than decoding a picture, some 10 ms; the second is for those
# that do not.
READERS = 2
_AHEAD = 4

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Read:
    """A picture as the network takes it, and the sha256 of its file; ``error`` where it cannot be read."""

    image_id: int
    sha256: str = ""
    tensor: NDArray[np.float32] | None = None
    placement: Placement | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class Seen:
    """What the network found in one image of ``size`` (height, width), or why the image could not be read.

    Attributes:
        sha256: of the picture's file.
        inference_s: the image's share of the time that the network alone took.
    """

    image_id: int
    found: Findings | None = None
    error: ImageError | None = None
    size: tuple[int, int] | None = None
    inference_s: float = 0.0
    sha256: str = ""


def ahead(
    work: Callable[[Given], Made], items: Iterable[Given], pool: ThreadPoolExecutor, depth: int
) -> Iterator[Made]:
    """``map`` in a pool, in order, never more than ``depth`` items ahead of whoever takes the results."""
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


def _reader(folder: Path, contract: Contract) -> Callable[[tuple[int, str]], Read]:
    height, width = contract.input_hw

    def read(entry: tuple[int, str]) -> Read:
        image_id, name = entry
        try:
            picture = read_image(folder / name)
        except ImageError as error:
            return Read(image_id, error=error)
        return Read(image_id, picture.sha256, *preprocess(picture.pixels, height, width, contract.preprocessing))

    return read


def _batches(read: Iterable[Read], size: int) -> Iterator[list[Read]]:
    """Pictures in batches; those that cannot be read come alone."""
    batch: list[Read] = []
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
    """A batch and what the network made of it, nothing where the picture cannot be read."""

    batch: list[Read]
    outputs: dict[str, Array]
    seconds: float = 0.0


def _infer(batch: list[Read], contract: Contract, runner: Runner) -> _Inferred:
    if batch[0].error:
        return _Inferred(batch, {})
    tensors = [one.tensor for one in batch if one.tensor is not None]
    tensors += [tensors[-1]] * (contract.batch - len(tensors))  # a static batch is filled with the last picture
    feed: dict[str, Array] = {contract.inputs[0].name: np.concatenate(tensors)}
    start_s = time.perf_counter()
    outputs = runner.run(feed)
    return _Inferred(batch, outputs, time.perf_counter() - start_s)


def _decode(inferred: _Inferred, contract: Contract) -> list[Seen]:
    require_finite(inferred.outputs, contract)
    seen = []
    for index, one in enumerate(inferred.batch):
        if one.placement is None:
            seen.append(Seen(one.image_id, error=one.error))
            continue
        # All detections count, however little they score; of segments those that belong to the picture.
        threshold = MergeConfig().score if contract.task == "panoptic" else 0.0
        found = from_network(inferred.outputs, contract, one.placement, threshold, index)
        size, share_s = (one.placement.height, one.placement.width), inferred.seconds / len(inferred.batch)
        seen.append(Seen(one.image_id, found, size=size, inference_s=share_s, sha256=one.sha256))
    return seen


def detect(images: Iterable[tuple[int, str]], folder: Path, contract: Contract, runner: Runner) -> Iterator[Seen]:
    """What the network finds in each image, in order; of a batch that is not full, those of its end are left out.

    Args:
        images: id and file name below ``folder``.
        folder: of the pictures.
        contract: of what ``runner`` runs.
        runner: called from this thread only.

    Raises:
        ArtifactError: when the artifact does not give what its task asks for, or what are no numbers.
    """
    with ThreadPoolExecutor(READERS, "read") as readers, ThreadPoolExecutor(1, "decode") as decoder:
        read = ahead(_reader(folder, contract), images, readers, max(_AHEAD, 2 * contract.batch))
        inferred = (_infer(batch, contract, runner) for batch in _batches(read, contract.batch))
        for seen in ahead(lambda work: _decode(work, contract), inferred, decoder, 2):
            yield from seen
