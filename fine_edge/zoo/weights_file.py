"""Where a checkpoint's tensors lie. Torch-free, so that an artifact's origin can be checked without torch."""

from __future__ import annotations

from pathlib import Path

# Of a Hugging Face directory, best first.
_NAMES = ("model.safetensors", "pytorch_model.bin")


def weights_file(weights: Path) -> Path:
    """The file that holds a checkpoint's tensors: the path itself, or the file inside a Hugging Face directory."""
    if weights.is_dir():
        return next((weights / name for name in _NAMES if (weights / name).is_file()), weights)
    return weights
