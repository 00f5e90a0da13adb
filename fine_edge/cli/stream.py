"""``fine-edge stream``: live detections from videos, cameras and network streams."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver
from fine_edge.cli.target import add_target_options, open_target, target_of
from fine_edge.command import Terminated
from fine_edge.errors import ConfigError
from fine_edge.files import refuse_unwritable
from fine_edge.runners.opened import Opened
from fine_edge.stream.network import batches_at_a_time
from fine_edge.stream.pipeline import Pipeline, require_frames
from fine_edge.stream.record import live_line, to_json, to_table, write_picture
from fine_edge.stream.sinks import CODECS, OTHER_ENDINGS, UNSTATED_FRAMES_PER_S, PictureFolder, Sink, Window, video_file
from fine_edge.stream.source import (
    CSI_CAMERA,
    USB_CAMERA,
    FrameSource,
    PictureSource,
    comes_live,
    file_path,
    open_source,
)
from fine_edge.stream.tracking import Tracks
from fine_edge.text import file_stem

_EPILOG = f"""\
SOURCE is a video file, a folder of pictures, a camera (0, /dev/video0), an address (rtsp://...), or a GStreamer
pipeline that ends in appsink. On a Jetson, whose OpenCV has GStreamer:

  CSI camera: '{CSI_CAMERA}'

  USB camera: '{USB_CAMERA}'

A live source drops late frames, a file drops none. Ctrl-C ends the stream and finishes its files.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = Parser(
        prog="fine-edge stream",
        description="Run a model on videos, cameras and network streams; decoding, preprocessing, the network and"
        " drawing overlap. Exit code 1 when a picture of a folder could not be read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="see below; several share batches")
    add_target_options(parser)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of an object (default: 0.5)")
    parser.add_argument(
        "--out", type=Path, metavar="VIDEO|DIR", help=f"drawn frames: a file ({', '.join(CODECS)}), or a folder"
    )
    parser.add_argument("--show", action="store_true", help="a window with the first source; q or Escape ends it")
    parser.add_argument("--track", action="store_true", help="number objects over frames (extra track)")
    parser.add_argument("--frames", type=int, metavar="N", help="end after N frames of all sources together")
    parser.add_argument("--loop", action="store_true", help="begin files again at their end, until Ctrl-C or --frames")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the stages (PNG)")
    add_json(parser)
    return parser


def main(argv: list[str]) -> int:
    """Run until the sources end; return 0 also after Ctrl-C, 143 after a signal, 1 when a picture was skipped."""
    given = make_parser().parse_args(argv)
    # What is wrong with the options is told before a model is exported and opened.
    _refuse_useless(given)
    # A live source wants its newest frame soon; a file wants all of its frames soon.
    waits = target_of(given).engine is None and not any(map(comes_live, given.sources))
    at_a_time = batches_at_a_time() if waits else 1
    # One thread for each batch where every core has a batch of its own: more would take turns on the cores.
    opened = open_target(given, threads=1 if at_a_time > 1 else None)
    # Closed from the last to the first: windows and videos before the sources, the runner behind all of them.
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(opened.runner))
        sources = [
            stack.enter_context(contextlib.closing(open_source(text, loop=given.loop))) for text in given.sources
        ]
        tracks = _tracks(given, opened, sources)
        pipeline = Pipeline(
            sources,
            opened.contract,
            opened.runner,
            given.threshold,
            sinks=[_sink(given.out, source, number, opened, stack) for number, source in enumerate(sources)],
            line=_line(opened),
            window=stack.enter_context(contextlib.closing(Window(_line(opened)))) if given.show else None,
            tracks=tracks,
            most_frames=given.frames,
            at_a_time=at_a_time,
        )
        with console.live_line() as say:
            tally = pipeline.run(lambda state: say(live_line(state, sum(pipeline.dropped))))
        # A stream that ended before its first frame has no result to be written.
        require_frames(tally)
    data = to_json(pipeline, opened, given.threshold, [len(track) for track in tracks])
    deliver(given, data, [to_table(data)])
    if given.picture:
        write_picture(data, given.picture)
        console.remark(f"picture: {given.picture}")
    # Behind the results: a signal ends the stream, and what it has done so far is written.
    if isinstance(tally.end, Terminated):
        return tally.end.code
    return 1 if any(source.skipped for source in sources) else 0


def _refuse_useless(given: argparse.Namespace) -> None:
    """Refuse options whose error would otherwise show after the first inference only."""
    if not 0 <= given.threshold <= 1:
        raise ConfigError(f"{given.threshold:g} is not a score", where="--threshold", hint="give a number from 0 to 1")
    if given.frames is not None and given.frames < 1:
        raise ConfigError(f"{given.frames} is no number of frames", where="--frames", hint="give 1 or more")
    _refuse_to_replace_sources(given)
    if given.out is None:
        return
    ending = given.out.suffix.lower()
    # As a folder it would be made under that name, such as drawn.mkv.
    if ending in OTHER_ENDINGS and not given.out.is_dir():
        known = ", ".join(CODECS)
        raise ConfigError(f"{ending} is not written", where="--out", hint=f"a file ({known}), or a folder")
    if ending not in CODECS:
        refuse_unwritable([given.out / "frame.png"])
        return
    refuse_unwritable([given.out])
    if len(given.sources) > 1:
        raise ConfigError("one video cannot hold several sources", where="--out", hint="give a folder")


def _refuse_to_replace_sources(given: argparse.Namespace) -> None:
    # Resolved: a link to the source is the source.
    sources = {file_path(source).resolve() for source in given.sources}
    for option in ("out", "picture"):
        file: Path | None = getattr(given, option)
        if file is not None and file.is_file() and file.resolve() in sources:
            raise ConfigError("it would replace a source", where=f"--{option}", hint="choose another name")


def _tracks(given: argparse.Namespace, opened: Opened, sources: Sequence[FrameSource]) -> list[Tracks]:
    if not given.track:
        return []
    if opened.contract.task not in ("detection", "instance"):
        raise ConfigError("segments are not tracked", where="--track", hint="leave it out")
    return [Tracks(source.frames_per_s or UNSTATED_FRAMES_PER_S, given.threshold) for source in sources]


def _sink(
    out: Path | None, source: FrameSource, number: int, opened: Opened, stack: contextlib.ExitStack
) -> Sink | None:
    if out is None:
        return None
    if out.suffix.lower() in CODECS:
        return stack.enter_context(video_file(out, source.frames_per_s))
    # The number tells cameras and files of one name apart.
    stem = f"{file_stem(Path(source.name).stem)}-{number}.{opened.contract.model}"
    if isinstance(source, PictureSource):
        return PictureFolder(out, stem)
    return stack.enter_context(video_file(out / f"{stem}.mp4", source.frames_per_s))


def _line(opened: Opened) -> str:
    weights = ", random weights: the results are meaningless" if opened.contract.random_weights else ""
    return f"{opened.contract.model} {opened.precision}, {opened.runner.name}{weights}"
