"""Resumption of a training from Trainer's own checkpoints, if they are complete and of the same training.

A manifest is written into each checkpoint as its last file. It names the training and holds the hashes of all files. A
checkpoint that a kill cut off, a disk damaged or a person copied from another training is thereby recognised.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fine_edge import console, files
from fine_edge.errors import DataError
from fine_edge.files import read_json, sha256_of

MANIFEST = "manifest.json"
_KEPT = 2
"""The number of checkpoints that are kept: the newest, and one to fall back to."""


def _steps(folder: Path) -> int:
    """Return the number in a checkpoint's name, -1 for any other folder."""
    prefix, _, steps = folder.name.rpartition("-")
    return int(steps) if prefix == PREFIX_CHECKPOINT_DIR and steps.isascii() and steps.isdecimal() else -1


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and _steps(path) >= 0]
    return sorted(found, key=_steps, reverse=True)


def _hashes(checkpoint: Path) -> dict[str, str]:
    files = (path for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256_of(path) for path in files}


def _flaw(checkpoint: Path, fingerprint: str) -> str | None:
    """Return why a training cannot resume from a checkpoint; ``None`` if it can."""
    if not (checkpoint / MANIFEST).is_file():
        return "was not written to its end"
    try:
        manifest = read_json(checkpoint / MANIFEST, DataError)
        found = _hashes(checkpoint)
    except (DataError, OSError):
        return "cannot be read"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return f"has a damaged {MANIFEST}"
    if manifest.get("training") != fingerprint:
        return "is of another training"
    changed = [name for name in sorted({*manifest["files"], *found}) if found.get(name) != manifest["files"].get(name)]
    return f"is damaged ({changed[0]} is not what was written)" if changed else None


def newest_whole(folder: Path, fingerprint: str) -> Path | None:
    """Return the newest checkpoint that a training can resume from, and warn of newer ones that it cannot.

    Args:
        folder: folder of the training.
        fingerprint: fingerprint of the training, see :func:`fine_edge.train.identity.fingerprint`.
    """
    found = _newest_first(folder)
    for checkpoint in found:
        flaw = _flaw(checkpoint, fingerprint)
        if flaw is None:
            console.remark(f"goes on from {checkpoint}")
            return checkpoint
        console.warn(f"{checkpoint} {flaw}: not used")
    if found:
        console.warn(f"{folder} holds no whole checkpoint of this training: it begins anew")
    return None


class Keeper(TrainerCallback):
    """A callback that writes each checkpoint's manifest, then removes all but the newest checkpoints.

    Args:
        fingerprint: fingerprint of the training.
        wait: returns when every process has called it.
    """

    def __init__(self, fingerprint: str, wait: Callable[[], None]) -> None:
        self._fingerprint, self._wait = fingerprint, wait

    def on_save(self, args: TrainingArguments, state: TrainerState, *_more: Any, **_named: Any) -> None:
        """Write the manifest of the checkpoint that Trainer has just written."""
        self._wait()  # every process writes its random state
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        manifest = {"training": self._fingerprint, "files": _hashes(checkpoint)}
        files.write_text(checkpoint / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        older = [path for path in _newest_first(folder) if _steps(path) < state.global_step]
        whole = [path for path in older if self._is_own(path)]
        for path in whole[_KEPT - 1 :]:
            shutil.rmtree(path)

    def _is_own(self, checkpoint: Path) -> bool:
        """Return whether this training wrote the checkpoint completely."""
        try:
            manifest = read_json(checkpoint / MANIFEST, DataError)
        except DataError:
            return False
        return isinstance(manifest, dict) and manifest.get("training") == self._fingerprint
