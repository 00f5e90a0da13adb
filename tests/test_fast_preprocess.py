"""OpenCV's path against the reference, for every preprocessing in the zoo; and who takes which."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fine_edge import feed
from fine_edge.errors import ConfigError
from fine_edge.fast_preprocess import fast_preprocess, in_one_piece, product_resize, triangle, vector_resize
from fine_edge.feed import Feed
from fine_edge.images import sample_photographs
from fine_edge.preprocess import InGraph, Preprocessing, preprocess
from fine_edge.zoo.catalog import DETECTORS

KINDS = list({detector.preprocessing: detector.name for detector in DETECTORS})
sides = st.integers(1, 90)


def levels_apart(pixels, height, width, how, antialiased=product_resize):
    """Differences of the inputs in levels of 255; the places must be equal."""
    ours, place = fast_preprocess(pixels, height, width, how, antialiased)
    reference, same = preprocess(pixels, height, width, how)
    assert (ours.shape, ours.dtype, place) == (reference.shape, reference.dtype, same)
    return np.abs(ours - reference) * np.array(how.std).reshape(1, 3, 1, 1) / how.scale


@pytest.mark.parametrize("how", KINDS)
@settings(max_examples=40)
@given(sides, sides, st.sampled_from([(64, 80), (32, 32), (1, 7)]))
def test_every_value_is_within_a_level_of_the_reference(how, height, width, size):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert levels_apart(pixels, *size, how).max() <= 1.001


@pytest.mark.parametrize("how", KINDS)
def test_photographs_differ_by_less_than_rounding(how):
    """With antialiasing all but bit for bit; without, the reference's floats are rounded to levels."""
    frame = np.asarray(Image.fromarray(sample_photographs()[2].pixels).resize((960, 540)))
    apart = levels_apart(frame, 320, 320, how)
    assert apart.max() <= 1.001
    assert apart.mean() < (0.01 if how.antialias else 0.3)


@pytest.fixture(scope="module")
def vectors():
    found = vector_resize()
    if found is None:
        pytest.skip("PyTorch has no vector instructions for this on this machine")
    return found


@pytest.mark.host
@settings(max_examples=60)
@given(height=sides, width=sides, size=st.sampled_from([(64, 80), (32, 32), (1, 7)]))
def test_every_value_of_pytorchs_resize_is_within_a_level_of_the_reference(vectors, height, width, size):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert levels_apart(pixels, *size, Preprocessing(), vectors).max() <= 1.001


@pytest.mark.host
def test_pytorch_resizes_frames_that_are_read_only_or_bgr_seen_as_rgb(vectors):
    frame = np.asarray(Image.fromarray(sample_photographs()[2].pixels).resize((960, 540)))
    assert not frame.flags.writeable
    assert levels_apart(frame, 320, 320, Preprocessing(), vectors).mean() < 0.01
    turned = fast_preprocess(np.ascontiguousarray(frame[..., ::-1])[..., ::-1], 320, 320, Preprocessing(), vectors)
    np.testing.assert_array_equal(turned[0], fast_preprocess(frame, 320, 320, Preprocessing(), vectors)[0])


@pytest.mark.parametrize("how", [KINDS[0], Preprocessing(antialias=False)])
@pytest.mark.parametrize("size", [(24, 32), (60, 90)])
def test_bgr_seen_as_rgb_gives_the_same_as_a_copy(how, size):
    bgr = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    whole = np.ascontiguousarray(bgr[..., ::-1])
    np.testing.assert_array_equal(fast_preprocess(bgr[..., ::-1], *size, how)[0], fast_preprocess(whole, *size, how)[0])


@pytest.mark.parametrize("cut", [slice(None), slice(5, 50)])
def test_a_view_becomes_one_piece_with_and_without_opencv(cut, monkeypatch):
    bgr = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)[cut, cut]
    here = in_one_piece(bgr[..., ::-1])
    monkeypatch.setitem(sys.modules, "cv2", None)
    for made in (here, in_one_piece(bgr[..., ::-1])):
        assert made.flags.c_contiguous
        np.testing.assert_array_equal(made, bgr[..., ::-1])


def test_padding_that_is_not_zero_is_normalised_too():
    how = Preprocessing("letterbox", mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4), pad_value=114, align="center")
    pixels = np.full((10, 40, 3), 7, np.uint8)
    assert levels_apart(pixels, 32, 32, how).max() < 1e-4


def test_the_triangle_is_as_wide_as_two_target_pixels():
    """Three pixels to one: 1 2 3 2 1 ninths around the middle; at the border what is there has all the weight."""
    first, middle, *_ = triangle(12, 4)
    assert (middle.begin, middle.end) == (2, 7)
    np.testing.assert_allclose(middle.weights, np.array([1, 2, 3, 2, 1]) / 9, atol=1e-6)
    assert (first.begin, first.end) == (0, 4)
    np.testing.assert_allclose(first.weights, np.array([2, 3, 2, 1]) / 8, atol=1e-6)


@pytest.fixture
def fresh():
    feed.has_opencv.cache_clear()
    yield
    feed.has_opencv.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_opencv_the_reference_is_taken_and_one_remark_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    feeds = [Feed((32, 32), Preprocessing()) for _ in range(2)]
    assert [one.way for one in feeds] == ["exact", "exact"]
    np.testing.assert_array_equal(feeds[0](pixels)[0], preprocess(pixels, 32, 32, Preprocessing())[0])
    assert capsys.readouterr().err.count("OpenCV is not here") == 1


@pytest.mark.parametrize(("many", "antialias", "loads"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_pytorch_is_loaded_for_many_pictures_that_are_antialiased_alone(monkeypatch, many, antialias, loads):
    asked = []
    monkeypatch.setattr(feed, "vector_resize", lambda: asked.append(1))
    tensor, _ = Feed((32, 32), Preprocessing(antialias=antialias), many=many)(np.zeros((40, 60, 3), np.uint8))
    assert (len(asked), tensor.shape) == (loads, (1, 3, 32, 32))


def test_a_device_without_pytorch_has_no_vector_resize(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert vector_resize.__wrapped__() is None


def test_the_reference_is_taken_where_it_is_asked_for():
    assert Feed((32, 32), Preprocessing(), exact=True).way == "exact"
    assert Feed((32, 32), Preprocessing()).way == "fast"


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_a_graph_that_preprocesses_gets_the_frame_as_it_is(color):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    one = Feed((40, 60), Preprocessing("letterbox", in_graph=InGraph(color, 32, 32)), exact=True)
    frame, placement = one(pixels)
    assert (one.way, frame.shape, frame.dtype, frame.flags.c_contiguous) == ("graph", (1, 40, 60, 3), np.uint8, True)
    np.testing.assert_array_equal(frame[0], pixels if color == "RGB" else pixels[..., ::-1])
    box = np.array([[1, 2, 70, 39]], np.float32)
    np.testing.assert_array_equal(placement.to_picture(box), [[1, 2, 60, 39]])
    with pytest.raises(ConfigError, match="takes frames of 40x60") as error:
        one(pixels[:39], "street.jpg")
    assert str(error.value).startswith("street.jpg: the picture is 39x60")
