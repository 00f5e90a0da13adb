"""Compare what ``fine-edge stream`` gets through with the bare network, in one run, slice by slice in turns.

    python bench/stream_throughput.py --json FILE           # a generated 1080p video
    python bench/stream_throughput.py --minutes 60          # one stream, its memory every 500 frames

Each turn runs the network alone, back to back on all cores, and then the whole stream over the video: decoding,
preprocessing, the network, postprocessing, nothing drawn; as files are streamed, a batch on each core, and as cameras
are, one batch on all cores, or on all but one (against a bare network of as many). Beside frames per second stands the
CPU time of this process by frame, which other programs on the machine disturb less. Nothing of this is a test: it takes
minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from fine_edge import console, files, machine
from fine_edge.bench.measure import WARMUP_RUNS
from fine_edge.contract import Contract, bound_contract
from fine_edge.export.artifacts import exported
from fine_edge.export.request import ExportRequest
from fine_edge.feed import Feed
from fine_edge.libraries import opencv
from fine_edge.machine import MIB
from fine_edge.runners.ort import OrtRunner
from fine_edge.stream.network import batches_at_a_time
from fine_edge.stream.pipeline import Pipeline, Tally
from fine_edge.stream.source import open_source
from fine_edge.table import Column, Table

HEIGHT, WIDTH, FRAMES_PER_S = 1080, 1920, 30
THRESHOLD = 0.5
BAR = 0.9
"""Lowest share of the bare network's throughput that a stream should keep."""
MEMORY_FRAMES = 500


def scene(number: int) -> Any:
    """Return a frame (1080, 1920, 3), BGR: discs that move over a smooth ground with noise of its own."""
    cv2 = opencv()
    coarse = np.random.default_rng(0).integers(40, 200, (34, 60, 3), dtype=np.uint8)
    frame = np.roll(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), 3 * number, axis=1)
    frame = np.ascontiguousarray(frame)
    for disc in range(12):
        centre = (160 * disc + 7 * number) % WIDTH, (90 * disc + 5 * number) % HEIGHT
        cv2.circle(frame, centre, 40 + 5 * disc, (20 * disc, 220, 90), -1)
    return frame


def write_video(path: Path, frames: int) -> Path:
    """Write a video of drawn frames (MPEG-4 part 2, which every OpenCV writes), unless it is there."""
    if path.is_file():
        return path
    cv2 = opencv()
    with files.written_together(path.parent, path.name) as partial:
        code = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(partial / path.name), code, FRAMES_PER_S, (WIDTH, HEIGHT))
        for number in range(frames):
            writer.write(scene(number))
        writer.release()
    return path


@dataclass(frozen=True)
class Share:
    """What one turn measured: frames per second and CPU milliseconds a frame, bare and through a stream."""

    bare_fps: float
    stream_fps: float
    bare_cpu_ms: float
    stream_cpu_ms: float
    decode_ms: float | None
    preprocess_ms: float | None

    @property
    def ratio(self) -> float:
        """Return the share of the bare network's throughput that the stream keeps."""
        return self.stream_fps / self.bare_fps


@dataclass(frozen=True)
class Way:
    """A way to stream: threads of the bare network, threads of the stream's, and its batches at a time."""

    bare_threads: int
    threads: int
    at_a_time: int


def ways(cores: int) -> dict[str, Way]:
    """Return the ways that are compared, by name."""
    found = {"file: a batch a core": Way(cores, 1, batches_at_a_time()), "live: all cores": Way(cores, cores, 1)}
    return found | ({"live: all but one": Way(cores - 1, cores - 1, 1)} if cores > 1 else {})


def streamed(video: Path, contract: Contract, runner: OrtRunner, at_a_time: int) -> Tally:
    """Run the stream over the video once."""
    with contextlib.closing(open_source(str(video))) as source:
        return Pipeline([source], contract, runner, THRESHOLD, at_a_time=at_a_time).run(lambda _tally: None)


def measure(video: Path, contract: Contract, runners: dict[int, OrtRunner], way: Way, bare_s: float) -> Share:
    """Run the network back to back for ``bare_s``, then the stream over the whole video."""
    bare = runners[way.bare_threads]
    frame = opencv().cvtColor(scene(0), opencv().COLOR_BGR2RGB)
    tensor, _ = Feed(contract.input_hw, contract.preprocessing)(frame)
    inputs = {contract.inputs[0].name: tensor}
    for _ in range(WARMUP_RUNS):
        bare.run(inputs)
    deadline = time.perf_counter() + bare_s
    begun, cpu = time.perf_counter(), time.process_time()
    queries = bare.back_to_back(_until(deadline, inputs))
    bare_fps, bare_cpu = queries / (time.perf_counter() - begun), (time.process_time() - cpu) / queries
    cpu = time.process_time()
    tally = streamed(video, contract, runners[way.threads], way.at_a_time)
    stream_cpu = (time.process_time() - cpu) / sum(tally.frames)
    return Share(
        bare_fps=bare_fps,
        stream_fps=tally.frames_per_s,
        bare_cpu_ms=1e3 * bare_cpu,
        stream_cpu_ms=1e3 * stream_cpu,
        decode_ms=tally.stages["decode"].percentile(50),
        preprocess_ms=tally.stages["preprocess"].percentile(50),
    )


def _until(deadline: float, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while time.perf_counter() < deadline:
        yield inputs


def compare(onnx: Path, video: Path, turns: int, bare_s: float) -> dict[str, Any]:
    """Return every turn by way, in turns."""
    contract, _ = bound_contract(onnx)
    tried = ways(machine.cores())
    used = {threads for way in tried.values() for threads in (way.bare_threads, way.threads)}
    runners = {threads: OrtRunner(onnx, threads) for threads in used}
    taken: dict[str, list[Share]] = {name: [] for name in tried}
    for turn in range(turns):
        for name, way in tried.items():
            taken[name].append(measure(video, contract, runners, way, bare_s))
            console.remark(f"turn {turn + 1} of {turns}, {name}: ratio {taken[name][-1].ratio:.3f}")
    return {
        "model": contract.model,
        "video": f"{WIDTH}x{HEIGHT}",
        "load": os.getloadavg()[0],
        "machine": machine.describe(),
        "ways": {name: [vars(share) for share in shares] for name, shares in taken.items()},
    }


def to_table(data: dict[str, Any]) -> Table:
    """Return medians over the turns, one row for each way."""
    names = ["Bare FPS", "Stream FPS", "Ratio", "Bare CPU (ms)", "Stream CPU (ms)", "decode (ms)", "preprocess (ms)"]
    title = f"{data['model']}: {data['video']} through a stream, {data['machine']['cpu']}"
    notes = [
        f"Bar: {BAR:g}. CPU time of the process by frame, threads that wait by spinning included.",
        f"Load of the machine at the end: {data['load']:.1f} on {data['machine']['cores']} cores.",
    ]
    table = Table(title, [Column("Stream", numeric=False), *map(Column, names)], notes=notes)
    for name, shares in data["ways"].items():

        def middle(key: str, shares: list[dict[str, Any]] = shares) -> float:
            return median(share[key] for share in shares)

        ratio = median(share["stream_fps"] / share["bare_fps"] for share in shares)
        figures = [f"{middle('bare_fps'):.1f}", f"{middle('stream_fps'):.1f}", f"{ratio:.3f}"]
        keys = ("bare_cpu_ms", "stream_cpu_ms", "decode_ms", "preprocess_ms")
        table.add(name, *figures, *(f"{middle(key):.2f}" for key in keys))
    return table


def watch_memory(onnx: Path, video: Path, minutes: float) -> dict[str, Any]:
    """Loop the video through one stream and print the resident set every :data:`MEMORY_FRAMES` frames."""
    contract, _ = bound_contract(onnx)
    process, ends = psutil.Process(), time.monotonic() + 60 * minutes
    seen: list[dict[str, float]] = []

    def look(tally: Tally) -> None:
        frames = sum(tally.frames)
        if frames >= MEMORY_FRAMES * (len(seen) + 1):
            resident = process.memory_info().rss / MIB
            seen.append({"frames": frames, "seconds": tally.seconds, "resident_mib": resident})
            console.remark(f"{frames} frames, {tally.frames_per_s:.1f} FPS, resident {resident:.1f} MiB")
        if time.monotonic() >= ends:
            raise KeyboardInterrupt

    with contextlib.closing(open_source(str(video), loop=True)) as source:
        pipeline = Pipeline([source], contract, OrtRunner(onnx, 1), THRESHOLD, at_a_time=batches_at_a_time())
        tally = pipeline.run(look)
    return {"frames": sum(tally.frames), "fps": tally.frames_per_s, "machine": machine.describe(), "memory": seen}


def main() -> None:
    """Measure as the options say, print what was found, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description="Compare a stream's throughput with the bare network's.")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="an export (default: fcos_mobilenetv3 at 320x320)")
    parser.add_argument("--artifacts", type=Path, default=Path("engines"), metavar="DIR", help="where that is exported")
    parser.add_argument("--video", type=Path, default=Path("engines/drawn_1080p.mp4"), help="1080p; drawn if missing")
    parser.add_argument("--frames", type=int, default=300, help="of the drawn video (default: 300)")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    parser.add_argument("--bare-s", type=float, default=10.0, help="seconds of the bare network a turn (default: 10)")
    parser.add_argument("--minutes", type=float, help="instead: one stream for so long, with its memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    given = parser.parse_args()
    onnx = given.onnx or exported(ExportRequest(model="fcos_mobilenetv3"), given.artifacts)
    video = write_video(given.video, given.frames)
    if given.minutes:
        data = watch_memory(onnx, video, given.minutes)
        console.remark(f"{data['frames']} frames at {data['fps']:.1f} FPS")
    else:
        data = compare(onnx, video, given.turns, given.bare_s)
        to_table(data).print(console.out)
    if given.json:
        files.write_text(given.json, json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
