"""Sources of frames: videos, folders of pictures, cameras, network streams and GStreamer pipelines.

OpenCV reads all but pictures. JetPack's OpenCV has GStreamer, the one on PyPI has not.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.errors import ConfigError, ImageError
from fine_edge.images import SUFFIXES, Pictures, is_folder
from fine_edge.libraries import opencv

Pixels = NDArray[np.uint8]

# Pipelines of a Jetson, as its documentation writes them, to copy and change. The appsink keeps the newest frame alone:
# a network that is slower than the camera would otherwise get older and older ones.
CSI_CAMERA = (
    "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1 ! nvvidconv"
    " ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
)
USB_CAMERA = (
    "v4l2src device=/dev/video0 ! image/jpeg,width=1280,height=720,framerate=30/1 ! nvv4l2decoder mjpeg=1 ! nvvidconv"
    " ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
)

# Pause before a broken stream is opened again; each failure doubles it.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
# Milliseconds until a camera that does not answer counts as broken, for opening and for each frame; OpenCV's own limit
# is 30 s.
_OPEN_MS = 10_000
# A frame of 192 MiB: sizes beyond any camera are those of damaged headers.
_MOST_PIXELS = 8192 * 8192
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# An address by its form, which is no live source: as a camera, a file was opened again at its end, for ever.
_FILE_SCHEME = "file://"
# A damaged frame is passed over; after so many in a row, what follows is taken for the end.
_MOST_DAMAGED_IN_A_ROW = 32
# By number or by device: 0, /dev/video0.
_CAMERA = re.compile(r"^(?:/dev/video)?(\d{1,3})$")


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, perhaps a view of BGR.
        source: index of its source.
        number: of the frames that its source gave so far.
        decode_ms: time to read and decode it.
    """

    pixels: Pixels
    source: int
    number: int
    decode_ms: float


class FrameSource(ABC):
    """A named source of pictures (H, W, 3), uint8 RGB.

    Attributes:
        name: for people; without the password of an address.
        is_live: whether frames come at their own pace, so that late ones are dropped.
        frames_per_s: as the source states it; ``None`` where it does not.
        reopened: how often the stream broke and was opened again.
    """

    def __init__(self, name: str, *, is_live: bool) -> None:
        self.name = name
        self.is_live = is_live
        self.frames_per_s: float | None = None
        self.reopened = 0

    @property
    def skipped(self) -> dict[Path, str]:
        """Return why pictures could not be read, by their files."""
        return {}

    @abstractmethod
    def pictures(self, stop: Event) -> Iterator[Pixels]:
        """Yield the pictures in order until the source ends or ``stop`` is set."""

    @abstractmethod
    def close(self) -> None:
        """Free what the source holds."""


class PictureSource(FrameSource):
    """Pictures of a folder, or one picture."""

    def __init__(self, path: Path, *, loop: bool) -> None:
        super().__init__(str(path), is_live=False)
        self._pictures = Pictures([path])
        self._loop = loop

    def pictures(self, stop: Event) -> Iterator[Pixels]:
        while True:
            for picture in self._pictures:
                if stop.is_set():
                    return
                yield picture.pixels
            if not self._loop:
                return

    @property
    def skipped(self) -> dict[Path, str]:
        """Return why pictures of the folder could not be read, by their files."""
        return self._pictures.skipped

    def close(self) -> None:
        """Do nothing: each picture is closed when it is read."""


class VideoSource(FrameSource):
    """Whatever OpenCV's VideoCapture opens.

    Args:
        name: for people.
        opened: opens a capture.
        is_live: see :class:`FrameSource`.
        loop: begin a file again at its end.

    Raises:
        ImageError: when it cannot be opened, or its pictures are too large.
    """

    def __init__(self, name: str, opened: Callable[[], Any], *, is_live: bool, loop: bool = False) -> None:
        super().__init__(name, is_live=is_live)
        self._opened = opened
        self._loop = loop
        self._capture = opened()
        cv2 = opencv()
        # OpenCV raises nothing for what it cannot open.
        if not self._capture.isOpened():
            raise ImageError("cannot be opened as a video", where=name, hint=_hint(name))
        width, height = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > _MOST_PIXELS:
            raise ImageError(f"has frames of {width}x{height} pixels, more than {_MOST_PIXELS}", where=name)
        stated = float(self._capture.get(cv2.CAP_PROP_FPS))
        # Some streams state 0, others the 90000 ticks of their clock.
        self.frames_per_s = stated if 1 <= stated <= 1000 else None
        # Zero for what has no end: no frame that fails is then taken for a damaged one.
        self._stated_frames = 0 if is_live else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def pictures(self, stop: Event) -> Iterator[Pixels]:
        given = damaged = 0  # since it was opened
        while not stop.is_set():
            passed, picture = self._read(self._stated_frames - given - damaged)
            if picture is not None:
                given, damaged = given + 1, damaged + passed
                yield picture[..., ::-1]  # a view: whoever needs RGB in one piece makes it
            elif self.is_live:
                self._open_again(stop)
            elif self._loop and given:
                self._capture.release()
                self._capture = self._opened()
                given = damaged = 0
            else:
                self._say_losses(given, damaged)
                return

    def _read(self, left: int) -> tuple[int, Pixels | None]:
        """Return how many damaged frames were passed over, and the picture behind them; ``None`` at the end.

        Args:
            left: frames that a file states beyond those that were read.
        """
        # OpenCV says of a damaged frame what it says at the end; the stated number of frames tells them apart.
        for passed in range(1 + min(max(left - 1, 0), _MOST_DAMAGED_IN_A_ROW)):
            is_read, picture = self._capture.read()
            if is_read:
                return passed, picture
        return 0, None

    def _open_again(self, stop: Event) -> None:
        """Open a broken stream again, with longer and longer pauses until it gives pictures."""
        self._capture.release()
        wait_s = FIRST_WAIT_S
        while not stop.is_set():
            console.warn(f"{self.name} broke off: opening it again in {wait_s:g} s")
            # In place of sleep: Ctrl-C ends the pause.
            if stop.wait(wait_s):
                return
            self._capture = self._opened()
            if self._capture.isOpened():
                self.reopened += 1
                return
            self._capture.release()
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _say_losses(self, given: int, damaged: int) -> None:
        if not given:
            raise ImageError("holds no frame that can be decoded", where=self.name, hint="is it whole?")
        if damaged:
            console.warn(f"{self.name}: {damaged} of {self._stated_frames} frames cannot be decoded and were left out")
        # Containers state a frame or two more than there are.
        if given + damaged < self._stated_frames - 2:
            console.warn(f"{self.name} ends at frame {given + damaged} of {self._stated_frames}: is the file whole?")

    def close(self) -> None:
        self._capture.release()


def _hint(name: str) -> str:
    # A line of what OpenCV says of itself: "    GStreamer:                   YES (1.20.3)".
    if " ! " in name and "GStreamer:                   YES" not in opencv().getBuildInformation():
        return (
            "this OpenCV was built without GStreamer; JetPack's has it, for numpy 1:"
            " pip uninstall opencv-python-headless; pip install 'numpy<2'; sudo apt install python3-opencv"
        )
    return "a video file, a folder, 0 or /dev/video0, rtsp://..., or a GStreamer pipeline that ends in appsink"


def comes_live(text: str) -> bool:
    """Return whether what a person names is a camera, an address or a GStreamer pipeline, and no file."""
    if text.startswith(_FILE_SCHEME):
        return False
    return bool(_CAMERA.match(text)) or " ! " in text or bool(_SCHEME.match(text))


def file_path(text: str) -> Path:
    """Return the path of a file that a person names, by itself or as ``file://``."""
    return Path(url2pathname(text.removeprefix(_FILE_SCHEME)) if text.startswith(_FILE_SCHEME) else text)


def open_source(text: str, *, loop: bool = False) -> FrameSource:
    """Open what a person names: a folder, a file, a camera, an address or a GStreamer pipeline.

    Args:
        text: the name.
        loop: begin files again at their end.

    Raises:
        ImageError: when it is missing, or holds no video.
        ConfigError: when a stream shall be looped.
        MissingExtraError: when OpenCV is not installed.
    """
    is_live = comes_live(text)
    if is_live and loop:
        raise ConfigError("a live source has no end", where="--loop", hint="leave it out")
    path = file_path(text)
    if not is_live and (is_folder(path) or path.suffix.lower() in SUFFIXES):
        return PictureSource(path, loop=loop)
    if not is_live and not path.is_file():
        raise ImageError("there is no such file", where=text, hint=_hint(""))
    opened = text if is_live else str(path)
    return VideoSource(_without_password(opened), lambda: _capture(opened), is_live=is_live, loop=loop)


def _without_password(text: str) -> str:
    # Names of sources are shown, and stand in results.
    # "rtsp://user:secret@camera/1" becomes "rtsp://camera/1".
    return re.sub(r"(?<=://)[^/@]*@", "", text)


def _capture(text: str) -> Any:
    cv2 = opencv()
    if camera := _CAMERA.match(text):
        return cv2.VideoCapture(int(camera[1]))
    # Named, since OpenCV would try its other backends as well, which take the text for the name of a file.
    if " ! " in text:
        return cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
    # RTSP over UDP loses packets, which tears pictures.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    # FFmpeg's backend takes its limits when it opens a file, not later.
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _OPEN_MS]
    return cv2.VideoCapture(text, cv2.CAP_FFMPEG, limits)


def frames(source: FrameSource, index: int, stop: Event) -> Iterator[Frame]:
    """Yield the frames of a source with the time that each took to decode."""
    begun = time.perf_counter()
    for number, pixels in enumerate(source.pictures(stop)):
        yield Frame(pixels, index, number, 1e3 * (time.perf_counter() - begun))
        # Behind the yield: the time that the next stage makes this one wait is none of decoding.
        begun = time.perf_counter()
