"""Time the preprocessing of a 1080p frame against OpenCV's own resize, for every kind of preprocessing in the zoo.

    python bench/preprocessing.py [--rounds 41]

All ways take turns in each round. Times are of one thread's processor, which other programs disturb less than the
clock's. Nothing of this is a test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from fine_edge import console
from fine_edge.fast_preprocess import fast_preprocess, vector_resize
from fine_edge.feed import noise
from fine_edge.libraries import opencv
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.samples import median
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import DETECTORS, Detector

HEIGHT, WIDTH = 1080, 1920


def ways(detector: Detector, frame: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return what is compared, by title of its column."""
    cv2 = opencv()
    (height, width), how = detector.input_hw, detector.preprocessing

    def library(interpolation: int) -> Callable[[], object]:
        return lambda: cv2.dnn.blobFromImage(
            cv2.resize(frame, (width, height), interpolation=interpolation), how.scale, swapRB=False
        )

    found: dict[str, Callable[[], object]] = {
        "reference": lambda: preprocess(frame, height, width, how),
        "fast": lambda: fast_preprocess(frame, height, width, how),
        "cv2.resize, blob": library(cv2.INTER_LINEAR),
        "INTER_AREA, blob": library(cv2.INTER_AREA),
    }
    vectors = vector_resize()
    if how.antialias and vectors:
        found["fast, PyTorch's resize"] = lambda: fast_preprocess(frame, height, width, how, vectors)
    return found


def timed(compared: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median of each way, ms; each round takes all of them in an order of its own."""
    taken: dict[str, list[float]] = {name: [] for name in compared}
    order = np.random.default_rng(0)
    for name in (name for _ in range(rounds + 1) for name in order.permutation(list(compared))):
        begun = time.thread_time()
        compared[name]()
        taken[name].append(1e3 * (time.thread_time() - begun))
    return {name: median(times[1:]) for name, times in taken.items()}


def main() -> None:
    """Time every kind of preprocessing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41, help="samples of each way (default: 41)")
    rounds = parser.parse_args().rounds
    opencv().setNumThreads(1)
    frame = noise((HEIGHT, WIDTH, 3), np.dtype(np.uint8), 0)
    kinds: dict[tuple[Preprocessing, tuple[int, int]], Detector] = {}
    for detector in DETECTORS:
        kinds.setdefault((detector.preprocessing, detector.input_hw), detector)
    titles = ["reference", "fast", "fast, PyTorch's resize", "cv2.resize, blob", "INTER_AREA, blob"]
    named = [Column("first model", numeric=False), Column("input", numeric=False)]
    title = f"ms of one thread for a frame of {HEIGHT}x{WIDTH}"
    table = Table(title, [*named, *map(Column, [*titles, "multiple"])])
    for (_, (height, width)), detector in kinds.items():
        found = timed(ways(detector, frame), rounds)
        best = found.get("fast, PyTorch's resize", found["fast"])
        cells = (f"{found[title]:.1f}" if title in found else "" for title in titles)
        table.add(detector.name, f"{height}x{width}", *cells, f"{best / found['cv2.resize, blob']:.2f}")
    table.print(console.out)


if __name__ == "__main__":
    main()
