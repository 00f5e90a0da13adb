"""Measure rows from JPEGs in memory to what is found in them: stage by stage, then through the threads of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from threading import Event

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fine_edge.bench.measure import Slice, no_garbage_collection, schedule
from fine_edge.bench.row import EndToEnd
from fine_edge.contract import Contract
from fine_edge.decode import from_network, require_finite
from fine_edge.feed import Feed, has_opencv
from fine_edge.images import NamedImage
from fine_edge.libraries import opencv
from fine_edge.runners.base import TimedRunner, Timing
from fine_edge.stream.pipeline import Pipeline
from fine_edge.stream.source import FrameSource

Pixels = NDArray[np.uint8]
# The default threshold of the commands predict and stream.
THRESHOLD = 0.5
# Of the JPEGs that photographs are encoded to: what cameras and their streams use.
QUALITY = 90
# Shortest time of an overlapped slice: threads fill and drain once in it.
SLICE_MS = 2000.0


def encoded(images: Sequence[NamedImage]) -> tuple[bytes, ...]:
    """Return pictures as JPEGs of :data:`QUALITY`, each of its own size."""
    found = []
    for image in images:
        data = BytesIO()
        Image.fromarray(image.pixels).save(data, format="JPEG", quality=QUALITY)
        found.append(data.getvalue())
    return tuple(found)


def decoded(jpeg: bytes) -> Pixels:
    """Return the pixels (H, W, 3) RGB of a JPEG: by OpenCV as in a stream where it is installed, else by Pillow."""
    if not has_opencv():
        with Image.open(BytesIO(jpeg), formats=("JPEG",)) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    cv2 = opencv()
    pixels: Pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return pixels


@dataclass(frozen=True)
class Passage:
    """The times of one picture on its way, milliseconds."""

    decode_ms: float
    preprocess_ms: float
    network: Timing
    postprocess_ms: float
    total_ms: float


class Way:
    """One row's way from a JPEG to what is found in it.

    Args:
        runner: of the row.
        contract: of the row; its outputs can be decoded.
        jpegs: the pictures, taken in turns.
    """

    def __init__(self, runner: TimedRunner, contract: Contract, jpegs: Sequence[bytes]) -> None:
        self.runner, self.contract, self.jpegs = runner, contract, tuple(jpegs)
        self._feed = Feed(contract.input_hw, contract.preprocessing, many=True)
        self._input = contract.inputs[0].name

    def passage(self, turn: int) -> Passage:
        """Take one picture through all stages, one after the other."""
        begun = time.perf_counter_ns()
        pixels = decoded(self.jpegs[turn % len(self.jpegs)])
        is_decoded = time.perf_counter_ns()
        tensor, placement = self._feed(pixels)
        is_prepared = time.perf_counter_ns()
        outputs, network = self.runner.run_timed({self._input: tensor})
        is_computed = time.perf_counter_ns()
        require_finite(outputs, self.contract)
        from_network(outputs, self.contract, placement, THRESHOLD)
        ended = time.perf_counter_ns()
        return Passage(
            decode_ms=(is_decoded - begun) / 1e6,
            preprocess_ms=(is_prepared - is_decoded) / 1e6,
            network=network,
            postprocess_ms=(ended - is_computed) / 1e6,
            total_ms=(ended - begun) / 1e6,
        )

    def overlapped(self, slice_ms: float) -> Slice:
        """Take pictures through the threads of ``fine-edge stream`` for at least ``slice_ms``."""
        source = _Jpegs(self.jpegs, time.monotonic() + slice_ms / 1e3)
        tally = Pipeline([source], self.contract, self.runner, THRESHOLD).run(lambda _tally: None)
        return Slice(sum(tally.frames), tally.seconds)


class _Jpegs(FrameSource):
    """JPEGs in memory, again and again until a moment of the monotonic clock; at least one."""

    def __init__(self, jpegs: Sequence[bytes], until_s: float) -> None:
        super().__init__("JPEGs in memory", is_live=False)
        self._jpegs, self._until_s = jpegs, until_s

    def pictures(self, stop: Event) -> Iterator[Pixels]:
        given = 0
        while not stop.is_set() and (not given or time.monotonic() < self._until_s):
            yield decoded(self._jpegs[given % len(self._jpegs)])
            given += 1

    def close(self) -> None:
        """Do nothing: it holds no resources."""


def measure_stages(
    ways: Sequence[Way], rounds: int, tick: Callable[[], None], seed: int = 0
) -> list[tuple[Passage, ...]]:
    """Take the round's picture through every way once, in balanced orders, each after one untimed passage of its own.

    Args:
        ways: with runners that are warmed up.
        rounds: number of samples of each.
        tick: called after each round, outside of all timing.
        seed: of the order.

    Returns:
        Passages by way and round.
    """
    taken: list[list[Passage]] = [[] for _ in ways]
    with no_garbage_collection():
        for turn, order in enumerate(schedule(len(ways), rounds, seed)):
            for index in order:
                ways[index].passage(turn)
                taken[index].append(ways[index].passage(turn))
            tick()
    return [tuple(passages) for passages in taken]


def measure_overlapped(
    ways: Sequence[Way],
    slices: int,
    tick: Callable[[], None],
    around: Callable[[int], AbstractContextManager[None]],
    seed: int = 0,
) -> list[tuple[Slice, ...]]:
    """Return overlapped slices of :data:`SLICE_MS` by way, interleaved; ``around`` is entered for each, by index."""
    taken: list[list[Slice]] = [[] for _ in ways]
    for order in schedule(len(ways), slices, seed):
        for index in order:
            with no_garbage_collection(), around(index):
                taken[index].append(ways[index].overlapped(SLICE_MS))
        tick()
    return [tuple(parts) for parts in taken]


def end_to_end(way: Way, passages: Sequence[Passage], slices: Sequence[Slice], energy_mj: float | None) -> EndToEnd:
    """Return what a record holds of one row.

    Args:
        way: of the row.
        passages: by round.
        slices: overlapped ones.
        energy_mj: of an image in them; ``None`` without power readings.
    """
    networks = [passage.network for passage in passages]

    def copies(times: Sequence[float | None]) -> tuple[float, ...] | None:
        known = tuple(ms for ms in times if ms is not None)
        return known if len(known) == len(times) else None

    return EndToEnd(
        decode_ms=tuple(passage.decode_ms for passage in passages),
        preprocess_ms=tuple(passage.preprocess_ms for passage in passages),
        h2d_ms=copies([network.h2d_ms for network in networks]),
        compute_ms=tuple(n.latency_ms if n.compute_ms is None else n.compute_ms for n in networks),
        d2h_ms=copies([network.d2h_ms for network in networks]),
        postprocess_ms=tuple(passage.postprocess_ms for passage in passages),
        total_ms=tuple(passage.total_ms for passage in passages),
        overlapped=tuple(slices),
        energy_mj_per_image=energy_mj,
        in_graph=way.contract.preprocessing.in_graph is not None,
    )
