"""Read images: the user's own, or the photographs that come with scikit-image.

The contents of a file decide its format, not its name; it must be one of :data:`FORMATS`. Of several frames or pages
the first is taken. Decoders of other formats never run: Pillow's decoder for EPS would start Ghostscript.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fine_edge import console
from fine_edge.errors import ImageError
from fine_edge.files import file_size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
MOST_BYTES = 2 * 2**30
# Largest number of pixels; Pillow has the same limit. Decoding so many takes about a gigabyte.
MOST_PIXELS = 178_956_970
# Longest side, which is that of a JPEG; resizing a longer one may exhaust the memory.
MOST_SIDE = 65_535
# Photographs of everyday scenes in scikit-image's own wheel; its other images are textures and micrographs.
_SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png")

# Software that our drawings name, so that a folder's drawings are not taken for its pictures.
DRAWN_BY = "fine_edge.cli.predict"

_ORIENTATION = 0x0112
# EXIF 2.32, Orientation: the operation that turns the stored pixels upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)

_open = Image.open  # Pillow's own function: ultralytics replaces it with one that installs packages


@dataclass(frozen=True)
class NamedImage:
    """A decoded image.

    Attributes:
        name: says where the image came from.
        pixels: (H, W, 3) uint8 RGB.
        sha256: hash of the file's bytes; empty where there is no file.
        path: the file.
        software: program that wrote the file, where the file names it.
    """

    name: str
    pixels: NDArray[np.uint8]
    sha256: str = ""
    path: Path | None = None
    software: str = ""


@dataclass(frozen=True)
class PictureSize:
    """Height and width of the upright picture in pixels, and the EXIF orientation of its file, 1 if upright."""

    height: int
    width: int
    orientation: int = 1

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Return height and width as :func:`read_image` gives them."""
        return self.height, self.width

    @property
    def stored_hw(self) -> tuple[int, int]:
        """Return height and width as the file stores them."""
        return (self.width, self.height) if self.orientation in _LYING else (self.height, self.width)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB without alpha.

    Pillow's own conversion clips 16-bit grey values at 255, which turns them white.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ImageError("32-bit pixels have no agreed range", hint="convert the picture to 8 or 16 bits")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; damaged EXIF data counts as upright, because viewers ignore it too."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
        return int(orientation) if orientation in _TURNS else 1
    except Exception:  # Pillow's parsers raise errors of any kind
        return 1


def _opened(source: Path | BytesIO) -> Image.Image:
    """Open a picture, which reads its header, and refuse a size that is too large to decode."""
    # Pillow's warnings about odd files help no user. A filter, because ``catch_warnings`` does not work with threads.
    if not any(
        entry[0] == "ignore" and str(getattr(entry[3], "pattern", "")) == r"PIL\b" for entry in warnings.filters
    ):
        warnings.filterwarnings("ignore", module=r"PIL\b")
    image = _open(source, formats=FORMATS)
    width, height = image.size
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        image.close()
        what = f"too large: {width}x{height}, at most {MOST_PIXELS} pixels and {MOST_SIDE} a side are read"
        raise ImageError(what, hint="cut it into tiles, or make it smaller")
    return image


def _refused(error: Exception, path: Path) -> ImageError:
    """Return our error for a file that cannot be read."""
    if isinstance(error, ImageError):
        return ImageError(error.what, where=path, hint=error.hint)
    if isinstance(error, MemoryError):
        return ImageError("too large to decode", where=path)
    if isinstance(error, Image.DecompressionBombError):
        what = f"too large: at most {MOST_PIXELS} pixels and {MOST_SIDE} a side are read"
        return ImageError(what, where=path, hint="cut it into tiles, or make it smaller")
    # Pillow's own message about an unknown format is an address in memory.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "of no known format" if unknown else f"{type(error).__name__}: {error}"
    return ImageError(f"cannot be decoded ({reason})", where=path, hint=f"is it a whole file of {', '.join(FORMATS)}?")


def _require_file(path: Path) -> None:
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # not a possible file name
        missing = False
    if missing:
        raise ImageError("no such image", where=path)
    file_size(path, ImageError, limit=MOST_BYTES)


def read_image(path: Path) -> NamedImage:
    """Decode an image file, upright (EXIF orientation applied) and RGB.

    Raises:
        ImageError: when the file is missing, truncated, too large or no image.
    """
    _require_file(path)
    try:
        data = path.read_bytes()
        with _opened(BytesIO(data)) as image:
            image.load()  # TIFF's decoder turns pictures upright itself, and then removes the orientation
            turn = _TURNS.get(_orientation(image))
            upright = _to_rgb(image if turn is None else image.transpose(turn))
            software = str(image.info.get("Software", ""))
        pixels = np.asarray(upright, dtype=np.uint8)
        return NamedImage(path.name, pixels, hashlib.sha256(data).hexdigest(), path, software)
    except Exception as error:  # Pillow's decoders raise errors of any kind: ValueError, SyntaxError, struct.error
        raise _refused(error, path) from error


def picture_size(path: Path) -> PictureSize:
    """Read the size of a picture from the header of its file.

    Raises:
        ImageError: when the file is missing or no image; a file that is truncated after its header is not noticed.
    """
    _require_file(path)
    try:
        with _opened(path) as image:
            orientation = _orientation(image)
            width, height = image.size
            # TIFF's reader already gives the upright size.
            if orientation in _LYING and image.format != "TIFF":
                width, height = height, width
            return PictureSize(height, width, orientation)
    except Exception as error:
        raise _refused(error, path) from error


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; an impossible path is none."""
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def find_images(paths: list[Path]) -> list[Path]:
    """Return the files, with folders replaced by the image files directly in them, in order of name."""
    found: list[Path] = []
    for path in paths:
        if is_folder(path):
            found += _inside(path)
        else:
            found.append(path)
    return found


def _inside(folder: Path) -> list[Path]:
    try:
        inside = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or error})", where=folder) from error
    if not inside:
        raise ImageError("the folder holds no image", where=folder, hint=f"known: {', '.join(sorted(SUFFIXES))}")
    return inside


class Pictures:
    """Pictures of files and folders, decoded one by one, so that memory does not grow with their number.

    Files of a folder that are no pictures are skipped, with one warning at the end. Drawings made by fine_edge that lie
    in a folder are left out.

    Args:
        paths: folders, and files that must be pictures.
        most: highest number of pictures to give.
        first: number of files at the beginning that are left out, because an earlier run has read them.

    Attributes:
        files: all files that are read.
        done: number of files read so far.
        skipped: why a file of a folder could not be read, by its path.

    Raises:
        ImageError: when a file among ``paths`` is no picture, or a folder holds none.
    """

    def __init__(self, paths: list[Path], most: int | None = None, first: int = 0) -> None:
        self._named = {path for path in paths if not is_folder(path)}
        for path in self._named:
            picture_size(path)
        self.files = find_images(paths)
        self.done = first
        self.skipped: dict[Path, str] = {}
        self._most = most
        self._first = first

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __iter__(self) -> Iterator[NamedImage]:
        """Decode the pictures in order.

        Raises:
            ImageError: when a file among ``paths`` cannot be decoded, or no picture can.
        """
        self.skipped.clear()
        yield from itertools.islice(self._decoded(), self._most)
        if self.skipped:
            reasons = "; ".join([*itertools.islice(self.skipped.values(), 3), *["..."] * (len(self.skipped) > 3)])
            console.warn(f"{len(self.skipped)} of {len(self)} pictures cannot be read and were skipped: {reasons}")

    def _decoded(self) -> Iterator[NamedImage]:
        given = drawings = 0
        for number, path in enumerate(self.files[self._first :], start=self._first + 1):
            self.done = number
            try:
                picture = read_image(path)
            except ImageError as error:
                if path in self._named:
                    raise
                self.skipped[path] = str(error)
                continue
            if picture.software == DRAWN_BY and path not in self._named:
                drawings += 1
                continue
            given += 1
            yield picture
            del picture  # frees its memory before the next one is decoded
        if drawings:
            console.remark(f"{drawings} drawings of fine_edge were left out")
        if not given and not self._first:
            reason = next(iter(self.skipped.values()), "they are drawings of fine_edge")
            raise ImageError(f"none of {len(self)} pictures can be read, such as {reason}")

    def readable(self) -> list[Path]:
        """Return the files that can be decoded; each is decoded once to find out."""
        return [picture.path for picture in self if picture.path]


def sample_photographs() -> list[NamedImage]:
    """Return the photographs in scikit-image's wheel: real pictures on a machine without a data set."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    photographs = [read_image(folder / name) for name in _SAMPLES if (folder / name).is_file()]
    if not photographs:
        raise ImageError("scikit-image came without its photographs", where=folder, hint="give your own with --images")
    return [NamedImage(f"skimage/{image.name}", image.pixels) for image in photographs]
