import itertools
from threading import Event

import numpy as np
import pytest
import servers
from PIL import Image

from fine_edge.errors import ConfigError, ImageError
from fine_edge.stream.source import PictureSource, frames, open_source


def brightness(source, most=None):
    """The numbers that the frames show."""
    seen = itertools.islice(frames(source, 0, Event()), most)
    return [round((float(frame.pixels.mean()) - 16) / 30) for frame in seen]


@pytest.fixture
def opened():
    """Open a source, and close it after the test."""
    kept = []

    def open_one(text, **options):
        kept.append(open_source(str(text), **options))
        return kept[-1]

    yield open_one
    for source in kept:
        source.close()


def test_a_video_gives_its_frames_in_order_and_colour(opened, video, tmp_path):
    source = opened(video)
    assert (source.is_live, source.frames_per_s) == (False, 25)
    assert brightness(source) == [number % 8 for number in range(12)]
    looped = opened(video, loop=True)
    assert brightness(looped, 30) == [number % 12 % 8 for number in range(30)]
    red = tmp_path / "red.png"
    Image.new("RGB", (8, 8), (200, 0, 0)).save(red)
    (frame,) = frames(opened(red), 3, Event())
    assert frame.pixels[0, 0].tolist() == [200, 0, 0]
    assert (frame.source, frame.number) == (3, 0)


def test_a_folder_gives_its_pictures(opened, tmp_path):
    for name in ("b.png", "a.png"):
        Image.fromarray(servers.picture(ord(name[0]) - ord("a"))).save(tmp_path / name)
    source = opened(tmp_path)
    assert isinstance(source, PictureSource)
    assert brightness(source) == [0, 1]


def test_a_network_camera(opened):
    camera = servers.RtspCamera(40)
    try:
        source = opened(camera.url)
        assert source.is_live
        assert brightness(source, 10) == [number % 8 for number in range(10)]
    finally:
        camera.close()


def test_a_broken_stream_is_opened_again(opened, monkeypatch, capsys):
    monkeypatch.setattr("fine_edge.stream.source.FIRST_WAIT_S", 0.01)
    camera = servers.HttpCamera([6, 6])
    try:
        source = opened(camera.url)
        assert brightness(source, 9) == [*range(6), 0, 1, 2]
        assert source.reopened == 1
        said = capsys.readouterr().err
        assert "video.mjpg broke off: opening it again in 0.01 s" in said
        assert "secret" not in said + source.name
    finally:
        camera.close()


def test_a_stream_that_stays_away_is_tried_less_and_less_often_until_it_is_ended(opened, monkeypatch):
    monkeypatch.setattr("fine_edge.stream.source.LONGEST_WAIT_S", 3.0)
    camera = servers.HttpCamera([3])
    source, stop, waits = opened(camera.url), Event(), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 5:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr(stop, "wait", wait)
    try:
        assert len(list(source.pictures(stop))) == 3
    finally:
        camera.close()
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert source.reopened == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.mp4", None, "there is no such file"),
        ("junk.mp4", b"\0" * 5000, "cannot be opened as a video"),
        ("text.avi", b"hello", "cannot be opened as a video"),
        ("/dev/video77", None, "cannot be opened as a video"),
        ("videotestsrc ! appsink", None, "cannot be opened as a video -> this OpenCV was built without GStreamer"),
        ("rtsp://127.0.0.1:9/none", None, "cannot be opened as a video"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, name, content, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as error:
        open_source(name)
    assert said in str(error.value)


def test_a_cut_video_says_where_it_ends(opened, video, tmp_path, capsys):
    whole = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    seen = brightness(opened(cut))
    assert 0 < len(seen) < 12
    assert f"ends at frame {len(seen)} of 12: is the file whole?" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_frame_is_passed_over_and_counted(opened, video, tmp_path, capsys):
    content = bytearray(video.read_bytes())
    fifth, sixth = (at for number, at in enumerate(_begins(content)) if number in (4, 5))
    content[fifth : sixth - 8] = bytes(sixth - 8 - fifth)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(content)
    kept = [number % 8 for number in range(12) if number != 4]
    assert brightness(opened(damaged)) == kept
    said = " ".join(capsys.readouterr().err.split())
    assert "damaged.avi: 1 of 12 frames cannot be decoded and were left out" in said
    assert "ends at" not in said
    assert brightness(opened(damaged, loop=True), 13) == [*kept, 0, 1]


def _begins(content):
    """Where the JPEG of each frame begins."""
    at = -1
    while (at := content.find(b"\xff\xd8\xff", at + 1)) >= 0:
        yield at


def test_the_address_of_a_file_is_a_file(opened, video):
    source = opened(video.as_uri())
    assert not source.is_live
    assert len(brightness(source)) == 12


def test_a_live_source_has_no_end():
    with pytest.raises(ConfigError, match="--loop"):
        open_source("rtsp://127.0.0.1:9/none", loop=True)


def test_frames_say_what_they_cost(opened, video):
    assert all(frame.decode_ms > 0 for frame in frames(opened(video), 0, Event()))
    assert np.array_equal([frame.number for frame in frames(opened(video), 0, Event())], range(12))
