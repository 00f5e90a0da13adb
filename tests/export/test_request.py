"""What may be asked for. No torch takes part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.errors import ConfigError, UnknownModelError
from fine_edge.export.request import ExportRequest, parse_size

LONG = "9" * 5000


@pytest.mark.parametrize(
    ("text", "size"), [("640", (640, 640)), ("480x640", (480, 640)), ("96X128", (96, 128)), (" 64 x 32 ", (64, 32))]
)
def test_sizes_are_read_height_first(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "x", "640x", "x640", "6.4", "-640", "640x640x3", "1e3", "wide", "640*640", "0", "0x640", "²", "8193", LONG],
)
def test_other_sizes_say_what_is_meant(text):
    with pytest.raises(ConfigError, match="use a side such as 640, or HEIGHTxWIDTH") as caught:
        parse_size(text)
    assert str(caught.value).count("\n") == 0


@given(st.integers(-100, 2000), st.integers(-100, 2000))
def test_sides_are_positive_multiples_of_32(height, width):
    height, width = height or -1, width or -1  # 0 asks for the detector's own size
    fits = all(side > 0 and side % 32 == 0 for side in (height, width))
    if fits:
        assert ExportRequest("rtdetr_r18", height=height, width=width).options()["height"] == height
        return
    with pytest.raises(ConfigError, match="multiple of 32") as caught:
        ExportRequest("rtdetr_r18", height=height, width=width)
    suggested = int(str(caught.value).rsplit(" ", 1)[1])
    assert suggested > 0
    assert suggested % 32 == 0


@pytest.mark.parametrize("side", [8224, 999_968])
def test_sides_end_where_no_board_could_follow(side):
    with pytest.raises(ConfigError, match=f"input width {side} is beyond 8192 pixels"):
        ExportRequest("rtdetr_r18", height=64, width=side)


@pytest.mark.parametrize(
    ("model", "raw", "says"),
    [
        ("fcos_mobilenetv3", True, "dense outputs are not suppressed -> leave out --raw or --nms"),
        ("rtdetr_r18", False, "rtdetr_r18 suppresses no boxes -> leave out --nms"),
        ("yolov10s", False, "yolov10s suppresses no boxes"),
    ],
)
def test_a_suppression_that_would_not_be_there_is_refused(model, raw, says):
    with pytest.raises(ConfigError, match=says):
        ExportRequest(model, raw=raw, nms="onnx")


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UnknownModelError, match="rtdetr_r18_fine"):
        ExportRequest("rtdetr_r18_fin")


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_images(batch):
    with pytest.raises(ConfigError, match=f"batch {batch} is not positive"):
        ExportRequest("rtdetr_r18", batch=batch)


def test_precisions_share_everything_but_the_file():
    fp32, fp16 = (ExportRequest("rtdetr_r18", precision=precision) for precision in ("fp32", "fp16"))
    assert (fp32.onnx_name(), fp16.onnx_name()) == ("rtdetr_r18.onnx", "rtdetr_r18.fp16.onnx")
    assert fp32.options() == fp16.options()


def test_the_sampling_of_rtdetr_is_told_apart_by_name_and_options():
    rows, grid = (ExportRequest("rtdetr_r18_fine", sampling=how) for how in ("rows", "grid"))
    assert (rows.onnx_name(), grid.onnx_name()) == ("rtdetr_r18_fine.onnx", "rtdetr_r18_fine.grid.onnx")
    assert (rows.options()["sampling"], grid.options()["sampling"]) == ("rows", "grid")
    assert "sampling" not in ExportRequest("yolov8s").options()
    with pytest.raises(ConfigError, match="yolov8s reads no map at computed positions"):
        ExportRequest("yolov8s", sampling="grid")
