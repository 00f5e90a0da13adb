"""What the libraries do besides their work, and how it is kept from happening.

    onnxruntime       from 1.32 on sends telemetry over the network and keeps a data base of it in the home folder
    huggingface_hub   under transformers: asks its server for files, sends telemetry
    matplotlib        keeps a list of fonts in the home folder
    torch, triton     keep what they compile among temporary files, or in the home folder
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
_FOLDERS = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_HOME")


def seclude() -> None:
    """Keep libraries from the network and from the home folder, in a process that is ours from its beginning.

    Folders that the user chose for them stay; others are temporary, made only by who writes into them, and go with
    the process.
    """
    import shutil
    import tempfile

    os.environ.update(_ALONE)
    try:
        folder = f"{tempfile.gettempdir()}/fine_edge-libraries-{os.urandom(8).hex()}"
    except FileNotFoundError:  # no folder for temporary files: who needs one will hear of it
        return
    for name in _FOLDERS:
        os.environ.setdefault(name, f"{folder}/{name.lower()}")
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
