"""Reading images, the user's own or the photographs that come with scikit-image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fine_edge.errors import ImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# Photographs of everyday scenes in scikit-image's own wheel; its other images are textures and micrographs.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png")


@dataclass(frozen=True)
class NamedImage:
    """A decoded image: ``pixels`` is (H, W, 3) uint8 RGB, ``name`` says where it came from."""

    name: str
    pixels: NDArray[np.uint8]


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; alpha is dropped. Pillow's own conversion clips 16-bit grey values at 255, which turns them white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ImageError("32-bit pixels have no agreed range", mend="convert the picture to 8 or 16 bits")
    return image.convert("RGB")


def read_image(path: Path) -> NamedImage:
    """Decode an image file, upright (EXIF orientation applied) and RGB.

    Raises:
        ImageError: when the file is missing, truncated, not an image or absurdly large.
    """
    try:
        if not path.is_file():
            raise ImageError("no such image" if not path.exists() else "not a file", where=path)
        # A decompression bomb is only a warning up to twice Pillow's limit; here it is an error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = _to_rgb(ImageOps.exif_transpose(image))
        return NamedImage(path.name, np.asarray(upright, dtype=np.uint8))
    except ImageError as error:
        raise ImageError(error.what, where=path, mend=error.mend) from error
    except MemoryError as error:
        raise ImageError("too large to decode", where=path) from error
    except Exception as error:  # Pillow's decoders raise whatever they meet: ValueError, SyntaxError, struct.error
        raise ImageError(
            f"cannot be decoded ({type(error).__name__}: {error})", where=path, mend="is it a whole JPEG or PNG file?"
        ) from error


def find_images(paths: list[Path]) -> list[Path]:
    """Expand folders into the image files directly inside them, in order of name."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
            if not inside:
                raise ImageError("the folder holds no image", where=path, mend=f"known: {', '.join(sorted(SUFFIXES))}")
            found += inside
        else:
            found.append(path)
    return found


def sample_photographs() -> list[NamedImage]:
    """The photographs in scikit-image's wheel: real pictures on a machine without a data set."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    photographs = [read_image(folder / name) for name in _SAMPLES if (folder / name).is_file()]
    if not photographs:
        raise ImageError("scikit-image came without its photographs", where=folder, mend="give your own with --images")
    return [NamedImage(f"skimage/{image.name}", image.pixels) for image in photographs]
