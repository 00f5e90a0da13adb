"""What the libraries do besides their work, and how it is kept from happening.

    onnxruntime       from 1.32 on sends telemetry over the network and keeps a data base of it in the home folder
    huggingface_hub   under transformers: asks its server for files, sends telemetry
    matplotlib        keeps a list of fonts in the home folder
    ultralytics       see :mod:`fine_edge.zoo.yolo.library`
    polygraphy        can install packages when asked to by the environment

Nothing is sent, installed or written outside of what was asked for. Telemetry is switched off where the package is
imported (:mod:`fine_edge`), the rest where a process is ours from its beginning. Child processes inherit both.
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


def seclude() -> None:
    """Keep libraries from the network and from the home folder, in a process that is ours from its beginning."""
    os.environ.update(_ALONE)
    if "MPLCONFIGDIR" not in os.environ:
        _give_matplotlib_a_folder()


def _give_matplotlib_a_folder() -> None:
    """Name a temporary folder, which matplotlib makes only where something is drawn."""
    import shutil
    import tempfile

    try:
        folder = f"{tempfile.gettempdir()}/fine_edge-matplotlib-{os.urandom(8).hex()}"
    except FileNotFoundError:  # no folder for temporary files: who draws will hear of it
        return
    os.environ["MPLCONFIGDIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def onnxruntime() -> Any:
    """Return ONNX Runtime, silent also where a program had imported it before us.

    Raises:
        MissingExtraError: when it is not installed.
    """
    try:
        import onnxruntime as module
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    module.disable_telemetry_events()
    return module
