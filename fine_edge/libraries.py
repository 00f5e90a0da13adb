"""Settings that keep libraries from side effects: network access, and files outside of what the user asked for.

    onnxruntime       from 1.32 on sends telemetry over the network and keeps a data base of it in the home folder
    huggingface_hub   under transformers: asks its server for files, sends telemetry
    matplotlib        keeps a list of fonts in the home folder
    torch, triton     keep compiled code among temporary files, or in the home folder
    ultralytics       see :mod:`fine_edge.zoo.yolo.library`
    opencv            prints what FFmpeg and its own backends think of a file
    polygraphy        can install packages when an environment variable asks for it

Importing :mod:`fine_edge` switches telemetry off. The other settings apply to processes that run a fine-edge command.
Child processes inherit both.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from fine_edge.errors import MissingExtraError

_ALONE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
    "DO_NOT_TRACK": "1",
}
_FOLDERS = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_HOME")


def isolate() -> None:
    """Keep libraries from the network and from the home folder, in a process that runs a fine-edge command.

    Folders that the user chose for libraries stay. The others are below a temporary folder, which a library makes when
    it needs it, and which is removed with the process.
    """
    import shutil
    import tempfile

    os.environ.update(_ALONE)
    try:
        folder = f"{tempfile.gettempdir()}/fine_edge-libraries-{os.urandom(8).hex()}"
    except FileNotFoundError:  # without a temporary folder, the library that needs one reports it
        return
    for name in _FOLDERS:
        os.environ.setdefault(name, f"{folder}/{name.lower()}")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def onnxruntime() -> Any:
    """Return ONNX Runtime without telemetry, even if a program imported it before us.

    Raises:
        MissingExtraError: when it is not installed.
    """
    try:
        import onnxruntime as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    module.disable_telemetry_events()
    return module


def opencv() -> Any:
    """Return OpenCV, without what it and FFmpeg print of files that they cannot read.

    Raises:
        MissingExtraError: when it is not installed, or lacks a library of the system.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except (ImportError, AttributeError) as error:  # AttributeError: one that was built for another numpy
        raise MissingExtraError("OpenCV", "video") from error
    return cv2
