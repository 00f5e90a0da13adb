"""The preprocessing in a Hugging Face folder: ``preprocessor_config.json`` of an RT-DETR in a contract's terms.

Every setting that changes a pixel is used, or refused by its name. This file needs no torch, as a request for an
artifact includes the input's size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.files import read_json
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.weights_file import PREPROCESSOR, PROCESSOR, CheckpointFiles

# ImageNet's, transformers' defaults of an RT-DETR's processor.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = tuple(f"RTDetrImageProcessor{kind}" for kind in ("", "Fast", "Pil"))
# Pillow's number for bilinear interpolation, as transformers writes it.
_BILINEAR = 2
_LARGEST_SIDE = 8192
# A number in a JSON file may be larger than any float.
_LARGEST_NUMBER = 2**31
_LONGEST_SHOWN = 100

# Settings of which a graph of fixed shape supports these values; the first is transformers' own.
_FIXED: dict[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "resample": (_BILINEAR, "bilinear"),
    "do_center_crop": (False, None),
    "image_processor_type": (*_KINDS, None),
    "feature_extractor_type": (*_KINDS, "RTDetrFeatureExtractor", None),
    "data_format": ("channels_first", None),
    "input_data_format": (None, "channels_last", "channels_first"),
}
_USED = {"size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_pad", "pad_size"}
# Settings that concern annotations, speed or the file itself.
_HARMLESS = {
    *("do_convert_annotations", "format", "return_segmentation_masks", "masks_path", "annotations", "return_tensors"),
    *("do_convert_rgb", "disable_grouping", "device", "default_to_square", "model_input_names", "use_fast"),
    *("_valid_processor_keys", "crop_size"),  # pictures are not cropped, or the file is refused
    *("processor_class", "_processor_class", "image_processor_class", "image_seq_length", "transformers_version"),
}


@dataclass(frozen=True)
class Processor:
    """The preprocessing from a picture to an input, and the input's height and width in pixels."""

    preprocessing: Preprocessing
    input_hw: tuple[int, int]


def read_processor(files: CheckpointFiles) -> Processor | None:
    """Return a checkpoint's image processor; ``None`` where the folder has none.

    Raises:
        WeightsError: when it is broken, or has a setting that is not supported.
    """
    # transformers prefers the settings inside processor_config.json to a file of their own.
    nested = files.settings.get(PROCESSOR)
    if nested is not None:
        data = _object(read_json(nested, WeightsError), nested)
        if "image_processor" in data:
            return _processor(_object(data["image_processor"], nested), nested)
    path = files.settings.get(PREPROCESSOR)
    return None if path is None else _processor(_object(read_json(path, WeightsError), path), path)


def _object(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise WeightsError(f"is broken (a {type(data).__name__} in the place of settings)", where=path)
    return data


def refused(name: str, value: object, supported: Sequence[object], path: Path) -> WeightsError:
    """Return the error for a setting that is not supported."""
    values = " or ".join(dict.fromkeys(one if isinstance(one, str) else shown(one) for one in supported))
    return WeightsError(
        f"{name} = {shown(value)} changes what is computed and is not supported",
        where=path,
        hint=f"supported: {values}",
    )


def unknown(name: str, value: object, path: Path) -> WeightsError:
    """Return the error for an unknown setting."""
    return WeightsError(
        f"{name} = {shown(value)} is an unknown setting, which may change what is computed",
        where=path,
        hint="remove it from the file if it does not concern inference",
    )


def shown(value: object) -> str:
    """Return a value as the file writes it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def same(value: object, wanted: object) -> bool:
    """Return whether a value of a JSON file equals a supported one; true is not 1, and a tuple equals a list."""
    if isinstance(wanted, tuple):
        wanted = list(wanted)
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _processor(data: dict[str, Any], path: Path) -> Processor:
    # A setting that is not known could change pixels, and would be passed over in silence.
    for name, value in data.items():
        if name in _FIXED and not any(same(value, wanted) for wanted in _FIXED[name]):
            raise refused(name, value, _FIXED[name], path)
        if name not in _FIXED and name not in _USED and name not in _HARMLESS and value is not None:
            raise unknown(name, value, path)
    size = _input_hw(data.get("size", {"height": 640, "width": 640}), "size", path)
    # Padding to the size that a picture is resized to adds nothing, so that it is taken.
    if _flag(data, "do_pad", path, default=False) and data.get("pad_size") is not None:
        pad_size = _input_hw(data["pad_size"], "pad_size", path)
        if pad_size != size:
            raise refused("pad_size", data["pad_size"], ("the same as size",), path)
    # What the file leaves out is as in transformers: rescaled, not normalised.
    scale, mean, std = 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(data, "do_rescale", path, default=True):
        scale = _number(data.get("rescale_factor", 1 / 255), "rescale_factor", path)
    if _flag(data, "do_normalize", path, default=False):
        mean = _channels(data.get("image_mean", _MEAN), "image_mean", path)
        std = _channels(data.get("image_std", _STD), "image_std", path)
        if min(std) <= 0:
            raise refused("image_std", data["image_std"], ("numbers above 0",), path)
    return Processor(Preprocessing(scale=scale, mean=mean, std=std), size)


def _input_hw(value: Any, name: str, path: Path) -> tuple[int, int]:
    """Return height and width of a size; refuse sizes that follow the picture's shape."""
    if isinstance(value, dict):
        stated = {key: side for key, side in value.items() if side is not None}
        sides = [stated.get("height"), stated.get("width")]
        if stated.keys() == {"height", "width"} and all(type(side) is int and side > 0 for side in sides):
            height, width = int(stated["height"]), int(stated["width"])
            if max(height, width) <= _LARGEST_SIDE:
                return height, width
    raise refused(name, value, (f"height and width of at most {_LARGEST_SIDE} pixels",), path)


def _flag(data: dict[str, Any], name: str, path: Path, *, default: bool) -> bool:
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise refused(name, value, ("true", "false"), path)
    return value


def _number(value: Any, name: str, path: Path) -> float:
    if not _is_real(value) or value == 0:
        raise refused(name, value, ("a number other than 0",), path)
    return float(value)


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST_NUMBER


def _channels(value: Any, name: str, path: Path) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_real, value)):
        raise refused(name, value, ("three numbers",), path)
    red, green, blue = map(float, value)
    return red, green, blue
