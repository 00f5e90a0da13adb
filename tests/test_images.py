"""Whatever bytes come: a picture or one of our errors."""

import io
import itertools
import os
import random
import subprocess
import weakref

import numpy as np
import pytest
from PIL import Image

from fine_edge import images
from fine_edge.errors import ImageError
from fine_edge.images import NamedImage, Pictures, find_images, picture_size, read_image, sample_photographs


def gradient(height=24, width=36):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7 % 256, y * 9 % 256, (x + y) * 4 % 256], axis=2).astype(np.uint8)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_come_back_exactly(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(gradient(), kind))
    image = read_image(path)
    assert image.name == path.name
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, gradient())


def test_jpeg_comes_back_nearly(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(gradient(), "JPEG", quality=95, subsampling=0))
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - gradient()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path, exif=exif)
    a = gradient()
    # EXIF 2.32, Orientation: which side of the picture the 0th row and the 0th column are.
    upright = {
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.transpose(1, 0, 2),
        6: np.rot90(a, -1),
        7: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(a, 1),
    }[orientation]
    np.testing.assert_array_equal(read_image(path).pixels, upright)


@pytest.mark.parametrize("mode", ["L", "1", "RGBA", "LA", "P", "CMYK", "YCbCr", "LAB"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / {"CMYK": "a.tif", "LAB": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png")
    Image.fromarray(gradient()).convert(mode).save(path)
    image = read_image(path)
    assert image.pixels.shape == (24, 36, 3)
    assert image.pixels.std() > 10


def test_transparency_keeps_the_colours(tmp_path):
    rgba = np.dstack([gradient(), np.full((24, 36), 100, np.uint8)])
    (tmp_path / "a.png").write_bytes(encoded(rgba, "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, gradient())


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, kind):
    grey = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(grey, kind.upper()))
    np.testing.assert_array_equal(read_image(path).pixels[..., 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused_and_not_guessed(tmp_path, dtype):
    (tmp_path / "a.tif").write_bytes(encoded(np.ones((8, 8), dtype), "TIFF"))
    with pytest.raises(ImageError, match=r"a\.tif: 32-bit pixels have no agreed range -> convert"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("limit", "most"), [("MOST_PIXELS", 863), ("MOST_SIDE", 35)])
def test_what_is_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch, limit, most):
    monkeypatch.setattr(images, limit, most)
    (tmp_path / "a.png").write_bytes(encoded(gradient(), "PNG")[:60])  # the head alone
    for read in (read_image, picture_size):
        with pytest.raises(ImageError, match=rf"a\.png: too large: 36x24, at most .*{most}.* -> cut it into tiles"):
            read(tmp_path / "a.png")


def test_pillows_own_limit_is_not_the_answer(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(gradient(), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 864 pixels: Pillow would warn
    assert read_image(tmp_path / "a.png").pixels.shape == (24, 36, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # more than twice as many: Pillow refuses
    with pytest.raises(ImageError, match=r"a\.png: too large: at most 178956970 pixels"):
        read_image(tmp_path / "a.png")


def test_other_formats_are_never_opened(tmp_path, monkeypatch):
    """Pillow hands a file called .jpg that begins like an EPS to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    Image.fromarray(gradient()).save(tmp_path / "b.jpg", "PPM")
    for name in ("a.jpg", "b.jpg"):
        for read in (read_image, picture_size):
            with pytest.raises(ImageError, match=rf"{name}: cannot be decoded .*of no known format.* -> is it a whole"):
                read(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("MPO", {})]
)
def test_of_several_frames_the_first_is_taken(tmp_path, kind, options):
    first, second = (Image.new("RGB", (30, 20), color) for color in ("red", "blue"))
    first.save(tmp_path / "a.jpg", kind, save_all=True, append_images=[second], **options)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (20, 30, 3)
    assert np.abs(image.pixels.astype(int) - [255, 0, 0]).max() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_is_told_from_the_head_of_a_file(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.bin"
    Image.fromarray(gradient()).save(path, kind, exif=exif)
    size = picture_size(path)
    assert size.upright_hw == read_image(path).pixels.shape[:2] == ((36, 24) if orientation == 6 else (24, 36))
    assert (size.stored_hw, size.orientation) == ((24, 36), orientation)


def test_damaged_exif_says_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, data in enumerate(
        [exif.tobytes()[:-7], b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
    ):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encoded(gradient(), "JPEG", exif=data))
        assert read_image(path).pixels.shape[:2] in ((24, 36), (36, 24))
        assert picture_size(path).upright_hw == read_image(path).pixels.shape[:2]


def junk(folder):
    """A picture among what folders of pictures hold besides."""
    folder.mkdir()
    whole = encoded(gradient(), "JPEG")
    (folder / "a.jpg").write_bytes(whole)
    (folder / "cut.jpg").write_bytes(whole[:-200])
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.JPG").write_text("not a picture")
    (folder / "folder.png").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    for name in (".DS_Store", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"junk")
    return folder


def test_what_a_folder_holds_beside_pictures_is_skipped_with_one_warning(tmp_path, capsys):
    pictures = Pictures([junk(tmp_path / "in")])
    assert [picture.name for picture in pictures] == ["a.jpg"]
    assert sorted(path.name for path in pictures.skipped) == [
        *("._a.jpg", "cut.jpg", "empty.png", "folder.png", "loop.jpg", "text.JPG")
    ]
    printed = capsys.readouterr().err
    assert printed.count("warning") == printed.count("\n") == 1
    assert "6 of 7 pictures cannot be read and were skipped" in printed
    assert printed.rstrip().endswith("; ...")


def test_a_folder_of_nothing_else_is_an_error(tmp_path):
    (junk(tmp_path / "in") / "a.jpg").unlink()
    with pytest.raises(ImageError, match="none of 6 pictures can be read, such as"):
        list(Pictures([tmp_path / "in"]))


def test_what_was_named_must_be_a_picture(tmp_path):
    folder = junk(tmp_path / "in")
    for name in ("._a.jpg", "empty.png", "text.JPG", "loop.jpg", "none.jpg"):
        with pytest.raises(ImageError, match=name):
            Pictures([folder / "a.jpg", folder / name])
    with pytest.raises(ImageError, match="cut"):
        list(Pictures([folder / "a.jpg", folder / "cut.jpg"]))
    (tmp_path / "pipe.jpg").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"pipe\.jpg: not a regular file"):
        Pictures([tmp_path / "pipe.jpg"])


def test_pictures_are_decoded_one_after_the_other(tmp_path, monkeypatch):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(gradient(), "PNG"))
    alive = weakref.WeakSet()

    class Watched(NamedImage):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)
            assert len(alive) == 1, "another picture is still in memory"

        __hash__ = object.__hash__

    monkeypatch.setattr(images, "NamedImage", Watched)
    pictures = Pictures([tmp_path])
    for picture in pictures:
        del picture
    assert pictures.done == len(pictures) == 4
    assert len(list(itertools.islice(Pictures([tmp_path], most=1), 9))) == 1
    behind = Pictures([tmp_path], first=3)
    assert behind.done == 3
    assert [picture.name for picture in behind] == ["3.png"]
    assert list(Pictures([tmp_path], first=4)) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_hundreds_of_damaged_files_give_a_picture_or_our_error(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(gradient(), kind, exif=exif)
    rng = random.Random(kind)
    path = tmp_path / f"a.{kind.lower()}"
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            outcome = read_image(path)
        except ImageError as error:
            outcome = error
        if isinstance(outcome, ImageError):
            refused += 1
            assert str(outcome).count("\n") == 0
            assert str(path) in str(outcome)
        else:
            assert outcome.pixels.ndim == 3
            assert outcome.pixels.shape[2] == 3
            assert min(outcome.pixels.shape) > 0
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"GIF89a", b"hello, I am text\n", bytes(range(256)) * 4])
def test_what_is_no_picture_says_so(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path / "a.jpg")


def test_places_without_a_picture(tmp_path):
    with pytest.raises(ImageError, match="no such image"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path)
    with pytest.raises(ImageError):
        read_image(tmp_path / ("a" * 5000))
    with pytest.raises(ImageError, match="holds no image"):
        find_images([tmp_path])


def test_folders_are_expanded_in_order_and_files_kept(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    other = tmp_path / "any.thing"
    assert [p.name for p in find_images([other, tmp_path])] == ["any.thing", "a.png", "b.JPG"]


def test_the_sample_photographs_are_photographs():
    photographs = sample_photographs()
    assert len(photographs) >= 4
    assert all(isinstance(p, NamedImage) and p.name.startswith("skimage/") for p in photographs)
    assert all(p.pixels.shape[2] == 3 and p.pixels.std() > 20 for p in photographs)
