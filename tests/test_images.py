"""Whatever bytes come: a picture or one of our errors."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from fine_edge.errors import ImageError
from fine_edge.images import NamedImage, find_images, read_image, sample_photographs


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


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    (tmp_path / "a.png").write_bytes(encoded(gradient(), "PNG"))  # 864 pixels: Pillow alone would only warn
    with pytest.raises(ImageError, match="decompression bomb"):
        read_image(tmp_path / "a.png")


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
    with pytest.raises(ImageError, match="not a file"):
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
