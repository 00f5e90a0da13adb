"""What a user waits for, by stage: an encoded picture in memory, to what is found in it.

Stages stand in the order of a frame's way. A backend without a device of its own copies nothing to it and back, so
these two stages do not exist there. In a graph that takes frames preprocessing is a part of compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from fine_edge import samples
from fine_edge.bench.measure import Slice
from fine_edge.fields import Positive

Samples = Annotated[tuple[Positive, ...], Meta(min_length=1)]
STAGES = {
    "decode": "decode",
    "preprocess": "preprocess",
    "h2d": "H2D",
    "compute": "compute",
    "d2h": "D2H",
    "postprocess": "postprocess",
}
"""The titles of the stages by name."""


def stage_titles(*, in_graph: bool) -> dict[str, str]:
    """Return the titles by name; ``in_graph`` where the graph preprocesses, which the host sees as compute alone."""
    return {**STAGES, "compute": "compute with preprocessing"} if in_graph else STAGES


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """One row from JPEGs in memory to what is found in them, measured in rounds of its own.

    Attributes:
        decode_ms: JPEG to pixels, by round.
        preprocess_ms: pixels to the input; where the graph does it, what is left for the host.
        h2d_ms: input to the device, by CUDA events; ``None`` on a backend that copies nothing.
        compute_ms: the network; by CUDA events on a device, by wall clock elsewhere.
        d2h_ms: outputs to the host, as ``h2d_ms``.
        postprocess_ms: outputs to detections or segments of the picture.
        total_ms: all of it one after the other, by wall clock; on a device also what no event covers: filling pinned
            memory, launching, copying outputs out of it.
        overlapped: slices through the threads of ``fine-edge stream``, which do the stages side by side.
        energy_mj_per_image: of the whole module during these slices; ``None`` without power readings.
        in_graph: whether the graph preprocesses, so that compute holds it.
    """

    decode_ms: Samples
    preprocess_ms: Samples
    h2d_ms: Samples | None = None
    compute_ms: Samples
    d2h_ms: Samples | None = None
    postprocess_ms: Samples
    total_ms: Samples
    overlapped: Annotated[tuple[Slice, ...], Meta(min_length=1)]
    energy_mj_per_image: Positive | None = None
    in_graph: bool = False

    @property
    def stages_ms(self) -> dict[str, tuple[float, ...] | None]:
        """Return the samples of each stage; ``None`` where the backend has no such stage."""
        return {name: getattr(self, f"{name}_ms") for name in STAGES}

    @property
    def medians_ms(self) -> dict[str, float | None]:
        """Return the median of each stage."""
        return {name: samples.median(taken) if taken else None for name, taken in self.stages_ms.items()}

    @property
    def p90_ms(self) -> dict[str, float | None]:
        """Return the 90th percentile of each stage; ``None`` also where there are too few samples."""
        return {name: samples.percentile(taken, 90) if taken else None for name, taken in self.stages_ms.items()}

    @property
    def total_median_ms(self) -> float:
        """Return the median of all stages one after the other."""
        return samples.median(self.total_ms)

    @property
    def fps_one_by_one(self) -> float:
        """Return the frames per second of stages one after the other: rounds over the sum of their times."""
        return 1e3 * len(self.total_ms) / sum(self.total_ms)

    @property
    def fps_overlapped(self) -> float:
        """Return the frames per second of stages side by side."""
        return sum(part.queries for part in self.overlapped) / sum(part.wall_s for part in self.overlapped)

    @property
    def after_decode_ms(self) -> tuple[float, ...]:
        """Return by round what a picture takes that is decoded already."""
        return tuple(total - decode for total, decode in zip(self.total_ms, self.decode_ms, strict=True))

    @property
    def derived(self) -> dict[str, float | None]:
        """Return what follows from the samples, by the name that a record gives it."""
        return {
            **{f"{name}_median_ms": value for name, value in self.medians_ms.items()},
            **{f"{name}_p90_ms": value for name, value in self.p90_ms.items()},
            "total_median_ms": self.total_median_ms,
            "total_p90_ms": samples.percentile(self.total_ms, 90),
            "fps_one_by_one": self.fps_one_by_one,
            "fps_overlapped": self.fps_overlapped,
        }

    def check(self) -> None:
        """Raise ``ValueError`` where the stages contradict each other."""
        counts = {name: len(taken) for name, taken in self.stages_ms.items() if taken is not None}
        if set(counts.values()) != {len(self.total_ms)}:
            raise ValueError(f"stages have {counts} samples for {len(self.total_ms)} totals")
        if (self.h2d_ms is None) != (self.d2h_ms is None):
            raise ValueError("stages: one copy to or from the device without the other")
        for turn, total in enumerate(self.total_ms):
            # Those by the same clock as the total.
            parts = self.decode_ms[turn] + self.preprocess_ms[turn] + self.postprocess_ms[turn]
            if parts > total:
                raise ValueError(f"stages take {parts:.3f} ms in round {turn + 1}, their total {total:.3f} ms")
