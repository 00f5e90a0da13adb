"""The import of ultralytics without its side effects; no other file imports it.

By default its first import asks a name server whether there is a network, writes a settings file into the user's home,
reads the machine's address to recognise it, starts to collect events to send, and may install packages later. It
replaces Pillow's ``Image.open`` by a function of its own, which tries to install a package at every file that is no
picture. It also sets OMP_NUM_THREADS for every process that is started later. A tool that builds and exports models
must do none of this. A program that has imported ultralytics itself, or has settings of its own, keeps them.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch  # before ultralytics sets OMP_NUM_THREADS, which it reads when it is first imported
from PIL import Image

from fine_edge.errors import ConfigError


def _has_settings() -> bool:
    """Return whether the user chose a folder of settings, or has one."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return "YOLO_CONFIG_DIR" in os.environ or (home / "Ultralytics" / "settings.json").is_file()


@contextlib.contextmanager
def _isolated() -> Iterator[None]:
    """Import ultralytics within the context without network, installations, output and files."""
    if "ultralytics" in sys.modules:
        yield
        return
    before = dict(os.environ)
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
    if not _has_settings():
        folder = tempfile.mkdtemp(prefix="fine_edge-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    node, uuid.getnode = uuid.getnode, lambda: 0
    open_image = Image.open
    try:
        yield
    finally:
        uuid.getnode = node
        Image.open = open_image
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        logging.getLogger("ultralytics").setLevel(logging.INFO)  # a user's own training may need its messages


with _isolated():
    from ultralytics import __version__
    from ultralytics.engine.exporter import Exporter
    from ultralytics.nn.modules import block, conv, head
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load
    from ultralytics.utils import loss, tal
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.torch_utils import fuse_conv_and_bn


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence ultralytics' log, which goes to standard output, and restore torch's threads after the context."""
    logger = logging.getLogger("ultralytics")
    level, threads = logger.level, torch.get_num_threads()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)


__all__ = [
    "DetectionModel",
    "Exporter",
    "__version__",
    "block",
    "conv",
    "fuse_conv_and_bn",
    "head",
    "loss",
    "non_max_suppression",
    "quiet",
    "tal",
    "yaml_model_load",
]


# The variants; the last letter is the scale, which ultralytics reads from the file's name.
VARIANTS = ("yolov5s", "yolov6s", "yolov8s", "yolov10s", "yolo12s", "yolov12s")

# Groups by layer: YOLOv12's authors grouped two early convolutions in their turbo release (their repository's
# ultralytics/cfg/models/v12/yolov12.yaml). The paper's figures, 9.1 M and 19.4 G, are of that release; ultralytics' own
# yolo12s, without groups, has 9.3 M and 21.4 G.
_TURBO_GROUPS = {1: 2, 3: 4}


def structure(variant: str) -> dict[str, Any]:
    """Return the yaml of a variant as a dict, without a download.

    Raises:
        ConfigError: for a name that is not in :data:`VARIANTS`.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"ultralytics has no variant {variant!r} here", hint=f"known: {', '.join(VARIANTS)}")
    turbo = variant == "yolov12s"
    layers: dict[str, Any] = yaml_model_load("yolo12s.yaml" if turbo else f"{variant}.yaml")
    if turbo:
        for index, groups in _TURBO_GROUPS.items():
            channels, kernel, stride = layers["backbone"][index][3]
            layers["backbone"][index][3] = [channels, kernel, stride, 1, groups]
    return layers
