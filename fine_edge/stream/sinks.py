"""Where drawn frames go: one video a source, pictures of a folder, or a window."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from fine_edge.drawing import write_drawing
from fine_edge.errors import BackendError, ConfigError, OutputError
from fine_edge.files import output_errors, written_together
from fine_edge.libraries import opencv
from fine_edge.stream.source import Pixels
from fine_edge.text import file_stem

# What OpenCV writes without other libraries, by the ending of the file.
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
# Of files that it does not write; a name that ends otherwise is that of a folder.
OTHER_ENDINGS = (".gif", ".jpg", ".jpeg", ".png", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
# Pictures and some cameras state no rate, and a video needs one to be played at.
UNSTATED_FRAMES_PER_S = 30.0

# What names the screen of a Linux program, or says that Qt needs none.
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


class Sink(Protocol):
    """Takes the drawn frames (H, W, 3), RGB, of one source in order."""

    def write(self, pixels: Pixels) -> None:
        """Take a frame."""
        ...


class VideoFile:
    """A video file whose frames all have the size of the first."""

    def __init__(self, path: Path, frames_per_s: float) -> None:
        self._path = path
        self._frames_per_s = frames_per_s
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, pixels: Pixels) -> None:
        cv2 = opencv()
        height, width = pixels.shape[:2]
        # Opened with the first frame: only that says the size.
        if self._writer is None:
            self._size = (width, height)
            code = cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), code, self._frames_per_s, self._size)
            if not self._writer.isOpened():
                raise OutputError("cannot be written as a video", where=self._path, hint="try another ending: .avi")
        # OpenCV's writer leaves out frames of another size without a word; pictures of a source may have any.
        frame = pixels if self._size == (width, height) else cv2.resize(pixels, self._size)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


@contextlib.contextmanager
def video_file(path: Path, frames_per_s: float | None) -> Iterator[VideoFile]:
    """Give a video file that stands under its name once it is whole; also after Ctrl-C, with the frames so far.

    Raises:
        ConfigError: when its ending names no known container.
        OutputError: when it cannot be written.
    """
    if path.suffix.lower() not in CODECS:
        raise ConfigError(f"{path.suffix or 'no ending'} is no video here", where=path, hint=f"one of {list(CODECS)}")
    # A container's index is written at its end, so that a file that was cut off can often not be played.
    with written_together(path.parent, path.name) as partial, output_errors(path):
        video = VideoFile(partial / path.name, frames_per_s or UNSTATED_FRAMES_PER_S)
        try:
            yield video
        finally:
            video.close()


class PictureFolder:
    """A numbered PNG for each frame."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, file_stem(stem)
        self._number = 0

    def write(self, pixels: Pixels) -> None:
        self._number += 1
        # Zeros in front: names in the order of the alphabet are in the order of the frames.
        write_drawing(Image.fromarray(pixels), self._folder / f"{self._stem}-{self._number:06d}.png")


class Window:
    """A window on the screen; it must be used by one thread alone, the main one."""

    def __init__(self, title: str) -> None:
        self._title = title
        cv2 = opencv()
        hint = "on a machine without a screen write a file: --out FILE.mp4"
        # Without a screen Qt, of which OpenCV's windows on PyPI are, ends the process instead of raising an error.
        if sys.platform == "linux" and not any(map(os.environ.get, _SCREENS)):
            raise BackendError("there is no screen here", where="--show", hint=hint)
        try:
            # One that can be resized: a frame can be larger than the screen.
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise BackendError("OpenCV cannot open a window here", where="--show", hint=hint) from error

    def show(self, pixels: Pixels) -> bool:
        """Show a frame; return ``False`` once a person has pressed q or Escape."""
        cv2 = opencv()
        cv2.imshow(self._title, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        # Without this call OpenCV draws no window. Above the key's 8 bits some desktops set others; 27 is Escape.
        return (cv2.waitKey(1) & 0xFF) not in (27, ord("q"))

    def close(self) -> None:
        """Close the window."""
        opencv().destroyAllWindows()
