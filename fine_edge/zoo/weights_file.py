"""The files of a checkpoint and their identity. No torch is needed, so that the origin of an artifact can be checked.

A folder of Hugging Face's libraries holds more than tensors: ``config.json`` describes the model, and
``preprocessor_config.json`` the preprocessing. All of it is read together and has one identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from fine_edge.errors import WeightsError
from fine_edge.files import file_size, read_json, sha256_of, sha256_of_files
from fine_edge.text import is_plain_name

# The tensors of a Hugging Face folder, in transformers' own order of preference.
_NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
# Such as model-00001-of-00004.safetensors.
_SHARD = re.compile(r".+-\d+-of-\d+\.(safetensors|bin)")
_MOST_SHARDS = 1000


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint.

    Attributes:
        tensors: the files with tensors.
        settings: the files with settings, by name.
        index: the index of the shards; ``None`` where one file holds all tensors.
    """

    tensors: tuple[Path, ...]
    settings: dict[str, Path] = field(default_factory=dict)
    index: Path | None = None

    @property
    def sha256(self) -> str:
        """Return one hash of all files; a single file has its own hash."""
        # The index decides which files are read, so that it is part of the identity.
        index = {} if self.index is None else {self.index.name: self.index}
        files = {path.name: path for path in self.tensors} | self.settings | index
        return sha256_of(self.tensors[0]) if len(files) == 1 else sha256_of_files(files)


def checkpoint_files(weights: Path) -> CheckpointFiles:
    """Return the files of a checkpoint, given as a file or as a folder.

    Tensors under the names of a Hugging Face folder are read with the configuration that lies beside them.

    Raises:
        WeightsError: when there is none, or when its index names files outside the folder.
    """
    if weights.is_dir():
        found = next((weights / name for name in _NAMES if (weights / name).exists()), None)
        if found is None:
            raise WeightsError(f"the folder holds no {' or '.join(_NAMES[::2])}", where=weights, hint="give the file")
        weights = found
    if _SHARD.fullmatch(weights.name):
        raise WeightsError("is one shard of several", where=weights, hint="give the folder with all shards and index")
    if not weights.exists():
        raise WeightsError("no such checkpoint", where=weights)
    if weights.suffix == ".json" and not weights.name.endswith(".index.json"):
        what = "holds settings, and the tensors lie in another file"
        raise WeightsError(what, where=weights, hint="give its folder, where that was written by save_pretrained")
    file_size(weights, WeightsError)
    settings = {}
    if weights.name in _NAMES:
        beside = {name: weights.with_name(name) for name in (CONFIG, PREPROCESSOR, PROCESSOR)}
        settings = {name: path for name, path in beside.items() if path.exists()}
    if weights.name.endswith(".index.json"):
        return CheckpointFiles(_shards(weights), settings, weights)
    return CheckpointFiles((weights,), settings)


def weights_sha256(weights: Path) -> str:
    """Return the identity of a checkpoint, which covers every file that is read.

    Raises:
        WeightsError: see :func:`checkpoint_files`.
    """
    return checkpoint_files(weights).sha256


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, all of them in its folder."""
    data = read_json(index, WeightsError)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names:
        raise WeightsError("has no weight_map of tensors to files", where=index)
    # A stranger wrote the index: a path in it could lead anywhere on this machine.
    outside = next((name for name in names.values() if not is_plain_name(name)), None)
    if outside is not None:
        raise WeightsError(f"{outside!r} is no name of a file beside it", where=index)
    files = [index.with_name(name) for name in sorted(set(names.values()))]
    if len(files) > _MOST_SHARDS:
        raise WeightsError(f"names {len(files)} shards, at most {_MOST_SHARDS} are read", where=index)
    for file in files:
        file_size(file, WeightsError, hint="bring all shards that the index names")
    return tuple(files)


def weights_file(weights: Path) -> Path:
    """Return the file that holds a checkpoint's tensors, the first of several."""
    return checkpoint_files(weights).tensors[0]
