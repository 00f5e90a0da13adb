import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fine_edge.errors import ArtifactError
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.zoo.catalog import find

sides = st.integers(1, 90)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.host
@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 81), (200, 13), (1, 1)])
def test_it_is_transformers_own_processor_bit_for_bit(height, width):
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    pixels = picture(height, width)
    processor = RTDetrImageProcessorPil(size={"height": 64, "width": 96})
    theirs = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    ours, _ = preprocess(pixels, 64, 96, Preprocessing())
    np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.host
@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([64, 80]))
def test_it_is_torchvisions_own_transform(height, width, side):
    """Sizes exactly, pixels within single precision; its sides are rounded down."""
    import torch
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    how = find("fasterrcnn_r50").detector.preprocessing
    pixels = picture(height, width)
    transform = GeneralizedRCNNTransform(side, side, list(how.mean), list(how.std), size_divisible=side)
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    # A picture so thin that nothing is left of a side is an error of torchvision's, and one pixel here.
    assume(min(height, width) * side >= max(height, width))
    theirs, _ = transform([image])
    ours, placement = preprocess(pixels, side, side, how)
    rows, columns = theirs.image_sizes[0]
    assert (round(placement.scale_y * height), round(placement.scale_x * width)) == (rows, columns)
    np.testing.assert_allclose(ours, theirs.tensors.numpy(), rtol=0, atol=2e-4)


@pytest.mark.host
@settings(max_examples=60, deadline=None)
@given(sides, sides)
def test_it_is_ultralytics_own_letterbox(height, width):
    """Within one of 256 levels: OpenCV rounds pixels, and its weights, to integers."""
    from ultralytics.data.augment import LetterBox

    pixels = picture(height, width)
    theirs = LetterBox((64, 96), auto=False)(image=pixels).transpose(2, 0, 1)[None] / 255
    ours, _ = preprocess(pixels, 64, 96, find("yolov8s").detector.preprocessing)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1 / 255 + 1e-6)


def test_without_antialiasing_four_pixels_count():
    """A checkerboard shrunk by four: its mean with antialiasing, what is nearest without."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::4, ::4] = 255
    soft, _ = preprocess(pixels, 16, 16, Preprocessing())
    sharp, _ = preprocess(pixels, 16, 16, Preprocessing(antialias=False))
    np.testing.assert_allclose(soft[..., 1:-1, 1:-1], 1 / 16, atol=0.03)
    np.testing.assert_array_equal(sharp, 0)  # the four pixels around the middle of each block are black


def test_the_input_is_ready_for_a_runner():
    tensor, _ = preprocess(picture(30, 50), 32, 64, Preprocessing())
    assert tensor.shape == (1, 3, 32, 64)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert 0 <= tensor.min() <= tensor.max() <= 1


def test_no_resize_is_a_transpose_and_a_division():
    pixels = picture(32, 64)
    tensor, placement = preprocess(pixels, 32, 64, Preprocessing())
    np.testing.assert_allclose(tensor[0], pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert (placement.scale_x, placement.scale_y) == (1, 1)


def test_mean_and_std_are_per_channel_in_rgb_order():
    how = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = picture(8, 8)
    tensor, _ = preprocess(pixels, 8, 8, how)
    expected = (pixels / 255 - np.array(how.mean)) / np.array(how.std)
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)


@given(sides, sides)
def test_letterbox_keeps_the_aspect_and_pads_right_and_below(height, width):
    pixels = np.full((height, width, 3), 200, np.uint8)
    tensor, placement = preprocess(pixels, 64, 64, Preprocessing(resize="letterbox", pad_value=10))
    inside = np.isclose(tensor[0, 0], 200 / 255, atol=1e-6)
    rows, cols = int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())
    assert inside[:rows, :cols].all()
    assert inside.sum() == rows * cols
    np.testing.assert_allclose(tensor[0, 0][~inside], 10 / 255, atol=1e-6)
    assert max(rows, cols) in (63, 64)
    # Rounded down; where a whole number is meant, it can lie a rounding error below it.
    assert -1e-9 <= max(1.0, height * 64 / max(height, width)) - rows < 1 + 1e-9
    assert -1e-9 <= max(1.0, width * 64 / max(height, width)) - cols < 1 + 1e-9
    assert (placement.scale_y, placement.scale_x) == (rows / height, cols / width)


@given(sides, sides, st.sampled_from(["stretch", "letterbox"]), st.data())
def test_boxes_find_their_way_back_to_the_picture(height, width, resize, data):
    _, placement = preprocess(picture(height, width), 64, 96, Preprocessing(resize=resize))
    fractions = [data.draw(st.floats(0, 1, width=32)) for _ in range(4)]
    box = np.array([fractions], np.float32) * np.array([width, height, width, height], np.float32)
    in_input = box * np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
    assert (in_input <= np.array([96, 64, 96, 64]) + 1e-3).all()
    np.testing.assert_allclose(placement.to_picture(in_input), box, rtol=1e-5, atol=1e-3)


def test_boxes_are_clipped_to_the_picture():
    _, placement = preprocess(picture(50, 100), 64, 64, Preprocessing(resize="letterbox"))
    boxes = np.array([[-5, -5, 80, 64], [10, 40, 20, 60]], np.float32)
    np.testing.assert_allclose(placement.to_picture(boxes), [[0, 0, 100, 50], [15.625, 50, 31.25, 50]])


def test_the_description_comes_back_from_json():
    how = Preprocessing("letterbox", 1.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 0, "center", antialias=False)
    assert Preprocessing.from_json(how.to_json()) == how


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("color", "BGR", "preprocessing's color is 'BGR', not RGB"),
        ("layout", "NHWC", "layout is 'NHWC'"),
        ("interpolation", "bicubic", "interpolation is 'bicubic'"),
        ("resize", "crop", "resize: invalid enum value 'crop'"),
        ("mean", [1, 2], "mean: expected array of length 3, got 2"),
        ("std", None, "std: expected array, got null"),
        ("std", [1, 0, 1], "a std or the scale is 0"),
        ("scale", "much", "scale: expected float, got str"),
        ("pad_value", float("inf"), "pad_value: expected int"),
    ],
)
def test_a_description_of_another_version_is_refused(key, value, reason):
    with pytest.raises(ArtifactError, match=reason):
        Preprocessing.from_json({**Preprocessing().to_json(), key: value})
    incomplete = Preprocessing().to_json()
    del incomplete[key]
    with pytest.raises(ArtifactError, match=f"preprocessing has no '{key}'"):
        Preprocessing.from_json(incomplete)


def test_a_centred_letterbox_has_the_picture_in_the_middle():
    how = Preprocessing("letterbox", align="center")
    tensor, placement = preprocess(np.full((20, 40, 3), 255, np.uint8), 64, 64, how)
    assert (placement.left, placement.top, placement.scale_x) == (0, 16, 1.6)
    grey = np.float32(114 / 255)
    assert (tensor[0, :, :16] == grey).all()
    assert (tensor[0, :, 16:48] == 1).all()
    assert (tensor[0, :, 48:] == grey).all()
    boxes = np.array([[0, 16, 64, 48], [16, 24, 32, 40]], np.float32)
    np.testing.assert_allclose(placement.to_picture(boxes), [[0, 0, 40, 20], [10, 5, 20, 15]])


def test_without_a_value_padding_is_zero_behind_the_normalisation():
    how = Preprocessing("letterbox", mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3), pad_value=None)
    tensor, _ = preprocess(np.full((32, 16, 3), 255, np.uint8), 32, 32, how)
    np.testing.assert_allclose(tensor[0, :, 5, 5], [5, 2.5, 5 / 3], rtol=1e-5)
    assert (tensor[0, :, :, 16:] == 0).all()


@given(sides, sides, st.sampled_from(["stretch", "letterbox"]), st.sampled_from(["corner", "center"]))
def test_boxes_go_there_and_back(height, width, resize, align):
    how = Preprocessing(resize, align=align)
    _, placement = preprocess(picture(height, width), 96, 64, how)
    inside = np.array([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], np.float32)
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    there = inside * scale + np.array([placement.left, placement.top] * 2)
    assert there.min() >= 0
    assert (there[:, 2] <= 64).all()
    assert (there[:, 3] <= 96).all()
    np.testing.assert_allclose(placement.to_picture(there.astype(np.float32)), inside, atol=1e-3)


def test_alignment_and_padding_come_back_from_a_contract():
    for how in (Preprocessing("letterbox", align="center"), Preprocessing("letterbox", pad_value=None)):
        assert Preprocessing.from_json(how.to_json()) == how
    old = Preprocessing().to_json()
    del old["align"]
    assert Preprocessing.from_json(old) == Preprocessing()
    with pytest.raises(ArtifactError, match="align: invalid enum value 'left'"):
        Preprocessing.from_json({**old, "align": "left"})
