"""The stages of a stream, side by side, and their times: decoding, preprocessing, network, outputs, drawing.

    a thread for each source -> preprocessing thread -> the network, in the caller's thread -> finishing thread -> sinks

Between them are channels of a few items, so that memory is the same after a minute and after a day. The network stays
in the caller's thread, unless it takes several batches at a time (:mod:`fine_edge.stream.network`); so does a window.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from fine_edge.command import Terminated
from fine_edge.contract import Contract
from fine_edge.decode import Prediction, from_network, label_name, require_finite
from fine_edge.detections import Detections
from fine_edge.drawing import color_of, tinted
from fine_edge.errors import DataError
from fine_edge.fast_preprocess import in_one_piece
from fine_edge.feed import Feed, Input
from fine_edge.libraries import opencv
from fine_edge.runners.base import Runner
from fine_edge.stream.channel import Channel
from fine_edge.stream.network import Answers, Batch, NetworkStage
from fine_edge.stream.sinks import Sink, Window
from fine_edge.stream.source import Frame, FrameSource, Pixels, frames
from fine_edge.stream.tracking import Tracks
from fine_edge.text import printable

# Draw what was found into a frame, fast enough for video: boxes, labels, track ids, masks and segments.


def draw_frame(
    pixels: Pixels, found: Prediction, labels: tuple[str, ...], line: str, tracks: Sequence[int] | None = None
) -> Pixels:
    """Return a frame (H, W, 3), RGB, with everything that was found and a line of text at its bottom.

    Args:
        pixels: the frame; it is not changed.
        found: in pixels of the frame.
        labels: names of the classes.
        line: what produced it.
        tracks: number of the track of each detection, -1 for none; the colour is the track's then.
    """
    cv2 = opencv()
    # OpenCV draws into arrays in one piece alone; a frame of a video is a view of BGR in the other order.
    whole = in_one_piece(pixels)
    canvas = tinted(whole, found)
    # Nothing was tinted then, and the frame itself would be drawn into.
    if np.may_share_memory(canvas, pixels):
        canvas = canvas.copy()
    # OpenCV's sizes are in pixels: the shorter side of the frame sets them, down to what can still be read.
    scale = max(0.4, min(canvas.shape[:2]) / 1200)
    thick = max(1, round(2 * scale))
    if isinstance(found, Detections):
        # Detections come best first; drawn last, the best lie on top.
        for index in reversed(range(len(found))):
            track = -1 if tracks is None else tracks[index]
            color = color_of(int(found.labels[index]) if track < 0 else track)
            x0, y0, x1, y1 = (round(float(v)) for v in found.boxes_xyxy_px[index])
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thick)
            name = label_name(int(found.labels[index]), labels)
            number = f" #{track}" if track >= 0 else ""
            _write(canvas, f"{name}{number} {found.scores[index]:.2f}", (x0, y0), scale, color)
    _write(canvas, line, (0, canvas.shape[0]), scale, (255, 255, 255))
    return canvas


def _write(canvas: Pixels, text: str, corner: tuple[int, int], scale: float, color: tuple[int, int, int]) -> None:
    """Write black text on a filled box that stands on ``corner``, or lies at the frame's top."""
    cv2 = opencv()
    text = printable(text).encode("ascii", "replace").decode()  # its fonts have no other signs
    thick = max(1, round(scale))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    # Moved inside of the frame, where the object reaches its left, right or upper edge.
    left = max(0, min(corner[0], canvas.shape[1] - width))
    top = max(0, corner[1] - height - below - 2)
    cv2.rectangle(canvas, (left, top), (left + width, top + height + below + 2), color, -1)
    cv2.putText(canvas, text, (left, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thick, cv2.LINE_AA)


# Times of the stages of a stream, in memory that does not grow with its length.

# In the order of a frame's way. Draw includes writing the frame.
STAGES = ("decode", "preprocess", "inference", "postprocess", "draw")

# Bins of 1 %, from a microsecond to a quarter of an hour.
_STEP = math.log(1.01)
_LEAST_MS = 1e-3
_BINS = 2100


class Distribution:
    """Counts of times in bins of 1 %, so that percentiles are exact to half a per cent."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, ms: float, times: int = 1) -> None:
        """Count a time."""
        # The logarithm makes bins of equal ratio; times of zero and of hours fall into the first and last one.
        place = int(math.log(max(ms, _LEAST_MS) / _LEAST_MS) / _STEP)
        self._counts[min(place, _BINS - 1)] += times

    def __len__(self) -> int:
        """Return how many times were counted."""
        return int(self._counts.sum())

    def percentile(self, percent: float) -> float | None:
        """Return the time in ms that ``percent`` of the counted ones do not exceed; ``None`` of nothing."""
        total = len(self)
        if not total:
            return None
        # The first bin up to which so many times were counted; the middle of it is at most half a bin away.
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(total * percent / 100)))
        return float(_LEAST_MS * math.exp((place + 0.5) * _STEP))


# Items between two stages: the next one is there when a stage has done its own; more would only make frames older.
_CAPACITY = 2
# Pause between two lines on the state so far.
_LIVE_LINE_S = 0.5
# How long the network waits for a batch before it looks at the window and the signals again.
_PATIENCE_S = 0.05
# How long a stage may take to end. One that hangs in a driver is left behind as a daemon.
_JOIN_S = 5.0


@dataclass
class Tally:
    """What a stream has done so far.

    Attributes:
        frames: finished, by source.
        batches: runs of the network.
        detections: found in them; segments, where the model finds those.
        stages: time of each stage, by frame.
        started_s: when the first frame was decoded, by the monotonic clock; ``None`` before.
        ended_s: when the last one was finished.
        end: what ended it before its sources did: a person (Ctrl-C, q) or a signal; ``None`` otherwise.
    """

    frames: list[int]
    batches: int = 0
    detections: int = 0
    stages: dict[str, Distribution] = field(default_factory=lambda: {name: Distribution() for name in STAGES})
    started_s: float | None = None
    ended_s: float = 0.0
    end: KeyboardInterrupt | Terminated | None = None

    @property
    def seconds(self) -> float:
        """Return the time from the first frame decoded to the last one finished."""
        return max(0.0, self.ended_s - self.started_s) if self.started_s is not None else 0.0

    @property
    def frames_per_s(self) -> float:
        """Return finished frames of all sources per second."""
        return sum(self.frames) / self.seconds if self.seconds else 0.0


class Pipeline:
    """A stream from its sources to its sinks.

    Args:
        sources: opened ones.
        contract: of the network.
        runner: the network.
        threshold: lowest score.
        sinks: for each source what takes its drawn frames; nothing is drawn where there is none.
        line: text at the bottom of drawn frames.
        window: shows the frames of the first source.
        tracks: for each source its tracks; empty without tracking.
        most_frames: of all sources together, where it should end by itself.
        at_a_time: batches in the network at a time; of one, the runner is called in the thread that calls :meth:`run`.
    """

    def __init__(
        self,
        sources: Sequence[FrameSource],
        contract: Contract,
        runner: Runner,
        threshold: float,
        *,
        sinks: Sequence[Sink | None] = (),
        line: str = "",
        window: Window | None = None,
        tracks: Sequence[Tracks] = (),
        most_frames: int | None = None,
        at_a_time: int = 1,
    ) -> None:
        self.sources, self._contract, self._threshold = sources, contract, threshold
        # Frames by the thousand: what is slow to load, such as PyTorch's resize, is loaded here.
        self._feed = Feed(contract.input_hw, contract.preprocessing, many=True)
        self.network = NetworkStage(runner, contract.inputs[0].name, at_a_time)
        self._sinks = tuple(sinks) or (None,) * len(sources)
        self._line, self._window, self._tracks, self._most = line, window, tuple(tracks), most_frames
        # Of each source so many frames that a batch can be filled from one of them alone while the next one is decoded.
        self._decoded: Channel[Frame] = Channel([source.is_live for source in sources], _CAPACITY * contract.batch)
        self._batches: Channel[Batch] = Channel([False], _CAPACITY)
        # At least as many as are computed at a time: where this channel is full, no other batch is begun.
        self._answers: Channel[Future[Answers]] = Channel([False], max(_CAPACITY, at_a_time))
        # A slow screen misses frames, and holds nothing up.
        self._shown: Channel[Pixels] = Channel([True], 1)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.tally = Tally([0] * len(sources))

    @property
    def dropped(self) -> list[int]:
        """Return the late frames that were left out, by source."""
        return self._decoded.dropped

    def run(self, tell: Callable[[Tally], None]) -> Tally:
        """Run until the sources end, a person ends it, or ``most_frames`` are done.

        Args:
            tell: called twice a second with the state so far.

        Raises:
            FineEdgeError: what a stage met; every thread has ended then.
        """
        threads = [threading.Thread(target=self._guarded, args=(self._decode, i)) for i in range(len(self.sources))]
        threads += [threading.Thread(target=self._guarded, args=(stage,)) for stage in (self._prepare, self._finish)]
        for thread in threads:
            thread.daemon = True  # a camera that hangs in a driver must not keep the process
            thread.start()
        try:
            # Here, in the caller's thread: it hears signals and a window's events, and CUDA's context is bound to it.
            self._infer(tell)
            self._answers.finish()
            # The last frames are still drawn and written while the network is done.
            self._wait_for_rest(threads[-1])
        except (KeyboardInterrupt, Terminated) as end:  # so that the files of the sinks are finished
            self.tally.end = end
        finally:
            # Behind an error as well: sinks are closed by the caller, and no thread may write into them then.
            self._end(threads)
            self.network.close()
        if self._failure is not None:
            raise self._failure
        return self.tally

    def _wait_for_rest(self, finishing: threading.Thread) -> None:
        while finishing.is_alive():
            finishing.join(_PATIENCE_S)
            self._show()

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        self._stop.set()
        for channel in (self._decoded, self._batches, self._answers):
            channel.abandon()
        for thread in threads:
            thread.join(_JOIN_S)

    def _guarded(self, stage: Callable[..., None], *arguments: int) -> None:
        """Run a stage; what it raises ends the stream, and is raised by :meth:`run`."""
        try:
            stage(*arguments)
        except BaseException as error:
            # The first one counts; the others follow from it.
            self._failure = self._failure or error
            self._stop.set()
            # Stages that wait for this one end, as their channels take and give nothing more.
            for channel in (self._decoded, self._batches, self._answers):
                channel.abandon()

    def _decode(self, index: int) -> None:
        source = self.sources[index]
        try:
            for frame in frames(source, index, self._stop):
                # From the beginning of the first decoding, so that the FPS of a few frames are not too high.
                if self.tally.started_s is None:
                    self.tally.started_s = time.monotonic() - frame.decode_ms / 1e3
                self.tally.stages["decode"].add(frame.decode_ms)
                if not self._decoded.send(frame, index):
                    return
        finally:
            self._decoded.finish(index)

    def _prepare(self) -> None:
        while taken := self._decoded.receive(self._contract.batch):
            begun = time.perf_counter()
            parts = [self._feed(frame.pixels, self.sources[frame.source].name) for frame in taken]
            inputs: list[Input] = [one for one, _ in parts]
            # A graph for one batch is filled up with the last picture; the answers for it are not looked at.
            inputs += inputs[-1:] * (self._contract.filled(len(inputs)) - len(inputs))
            together = np.concatenate(inputs) if len(inputs) > 1 else inputs[0]  # (B, 3, H, W), or frames (B, H, W, 3)
            batch = Batch(tuple(taken), tuple(placement for _, placement in parts), together)
            self.tally.stages["preprocess"].add(1e3 * (time.perf_counter() - begun) / len(taken), len(taken))
            if not self._batches.send(batch):
                return
        self._batches.finish()

    def _infer(self, tell: Callable[[Tally], None]) -> None:
        begun_frames, told_s = 0, time.monotonic()
        while not self._batches.is_done:
            # Without an end of the wait, q in the window and a signal would be heard with the next frame only.
            for batch in self._batches.receive(timeout_s=_PATIENCE_S):
                begun_frames += len(batch.frames)
                self._answers.send(self.network.begin(batch))
            # Counted when a batch begins: what has begun is finished, so that there are perhaps a few more frames than
            # asked for.
            if not self._show() or (self._most is not None and begun_frames >= self._most):
                return
            if time.monotonic() - told_s >= _LIVE_LINE_S:
                told_s = time.monotonic()
                tell(self.tally)

    def _finish(self) -> None:
        while taken := self._answers.receive():
            # In the order in which batches began, whichever is computed first: tracks and videos need frames in order.
            for answers in (begun.result() for begun in taken):
                # FP16 that overflows gives NaN, of which every comparison is false: it would look like a picture
                # without objects.
                require_finite(answers.outputs, self._contract)
                count = len(answers.batch.frames)
                self.tally.batches += 1
                self.tally.stages["inference"].add(answers.took_ms / count, count)
                for place, frame in enumerate(answers.batch.frames):
                    self._finish_frame(answers, place, frame)

    def _finish_frame(self, answers: Answers, place: int, frame: Frame) -> None:
        begun = time.perf_counter()
        placement = answers.batch.placements[place]
        found = from_network(answers.outputs, self._contract, placement, self._threshold, place)
        tracks = None
        if self._tracks and isinstance(found, Detections):
            tracks = self._tracks[frame.source].update(found)
        decoded = time.perf_counter()
        self.tally.stages["postprocess"].add(1e3 * (decoded - begun))
        sink, is_shown = self._sinks[frame.source], self._window is not None and frame.source == 0
        if sink or is_shown:
            drawn = draw_frame(frame.pixels, found, self._contract.labels, self._line, tracks)
            if sink:
                sink.write(drawn)
            if is_shown:
                # Shown by the caller's thread: desktops take a window's events from one thread alone.
                self._shown.send(drawn)
            self.tally.stages["draw"].add(1e3 * (time.perf_counter() - decoded))
        self.tally.detections += _count(found)
        self.tally.frames[frame.source] += 1
        self.tally.ended_s = time.monotonic()

    def _show(self) -> bool:
        """Show the newest drawn frame; return ``False`` once a person wants to end."""
        if self._window is None:
            return True
        shown = [self._window.show(pixels) for pixels in self._shown.receive(timeout_s=0)]
        if not all(shown):
            self.tally.end = KeyboardInterrupt()
        return all(shown)


def _count(found: Prediction) -> int:
    return len(found) if isinstance(found, Detections) else len(found.segments)


def require_frames(tally: Tally) -> None:
    """Refuse a stream of no frame, whose result would rest on nothing.

    Raises:
        KeyboardInterrupt, Terminated: when a person or a signal ended it before the first one.
        DataError: otherwise.
    """
    if sum(tally.frames):
        return
    if tally.end is not None:
        raise tally.end
    raise DataError("no frame went through", where="stream", hint="look at the source with another player")
