import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import servers
from PIL import Image
from tiny_detector import open_batch, write_detector

from fine_edge import command
from fine_edge.cli.predict import main as predict
from fine_edge.cli.stream import main
from fine_edge.detections import Detections
from fine_edge.libraries import opencv
from fine_edge.runners.ort import OrtRunner
from fine_edge.stream.tracking import Tracks

SECONDS = 60


def stream(capsys, *arguments):
    """The result of the command as JSON."""
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def frames_of(path):
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def test_a_file_loses_no_frame_and_every_stage_is_timed(video, detector, capsys):
    found = stream(capsys, video, "--onnx", detector)
    assert (found["frames"], found["dropped"], found["detections"]) == (12, 0, 24)
    assert found["fps"] == pytest.approx(12 / found["seconds"])
    for name in ("decode", "preprocess", "inference", "postprocess"):
        assert 0 < found["stages_ms"][name]["p50"] <= found["stages_ms"][name]["p90"]
    assert found["stages_ms"]["draw"] == {"p50": None, "p90": None}
    assert (found["backend"], found["precision"], found["batch"]) == ("onnxruntime-cpu", "fp32", 1)
    assert found["sources"][0]["frames"] == 12
    assert found["machine"]["cores"]
    assert found["artifact_sha256"]
    assert stream(capsys, video, "--onnx", detector, "--threshold", 0.95)["detections"] == 0


def test_pictures_give_what_predict_finds_in_them(detector, tmp_path, capsys):
    for number in range(3):
        Image.fromarray(servers.picture(number)).save(tmp_path / f"{number}.png")
    assert predict([str(tmp_path), "--onnx", str(detector), "--out", str(tmp_path / "drawn"), "--json"]) == 0
    expected = len(json.loads(capsys.readouterr().out)["detections"])
    out = tmp_path / "frames"
    assert stream(capsys, tmp_path, "--onnx", detector, "--out", out)["detections"] == expected
    assert len(list(out.glob("*.png"))) == 3


def test_a_picture_that_cannot_be_read_is_named_and_ends_it_with_1(detector, tmp_path, capsys):
    Image.fromarray(servers.picture(0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"cut")
    assert main([str(tmp_path), "--onnx", str(detector), "--json"]) == 1
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert source["frames"] == 1
    assert list(source["skipped"]) == [str(tmp_path / "1.png")]


def test_the_table_the_picture_and_the_video(video, detector, tmp_path, capsys):
    out, picture = tmp_path / "out.avi", tmp_path / "stages.png"
    assert main([str(video), "--onnx", str(detector), "--out", str(out), "--picture", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "FPS over 12 frames" in said
    assert "24 detections of at least 0.5; 0 late frames dropped." in said
    assert max(map(len, said.splitlines())) <= 100
    drawn = frames_of(out)
    assert len(drawn) == 12
    assert drawn[0].shape == (servers.HEIGHT, servers.WIDTH, 3)
    assert any(np.ptp(frame) > 100 for frame in drawn), "boxes are drawn on grey frames"
    with Image.open(picture) as image:
        assert image.width > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.avi", "stages.png"]


def test_sources_share_batches_and_each_has_its_video(video, tmp_path, capsys):
    detector = write_detector(tmp_path / "in", batch=4)
    out = tmp_path / "videos"
    found = stream(capsys, video, video, "--onnx", detector, "--out", out, "--track")
    assert [source["frames"] for source in found["sources"]] == [12, 12]
    assert found["batch"] == 4
    assert found["detections"] == 48
    assert found["tracks"] == 4
    assert [len(frames_of(path)) for path in sorted(out.iterdir())] == [12, 12]


def test_an_open_batch_holds_the_frames_that_are_there_and_no_others(video, tmp_path, capsys, monkeypatch):
    fed, run = [], OrtRunner.run
    monkeypatch.setattr(
        OrtRunner,
        "run",
        lambda self, inputs: (time.sleep(0.02), fed.append(len(inputs["images"])), run(self, inputs))[2],
    )
    detector = open_batch(write_detector(tmp_path / "in"), (1, 4, 4))
    assert main([*[str(video)] * 3, "--onnx", str(detector)]) == 0
    assert sum(fed) == 36
    assert max(fed) in (2, 3, 4), "the network is slow, so frames of several sources wait for it"
    assert f"{36 / len(fed):.1f} frames in each batch of at most 4." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("cores", [1, 3])
def test_a_file_has_a_batch_on_each_core_and_its_frames_stay_in_order(
    video, detector, tmp_path, capsys, monkeypatch, cores
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    lock, inside, most, run = threading.Lock(), 0, 0, OrtRunner.run

    def slow(self, inputs):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.03 - 0.02 * float(inputs["images"].mean()))  # brighter frames are faster
        found = run(self, inputs)
        with lock:
            inside -= 1
        return found

    monkeypatch.setattr(OrtRunner, "run", slow)
    found = stream(capsys, video, "--onnx", detector, "--out", tmp_path / "out.avi", "--threshold", 0.95)
    assert (found["frames"], found["batches_at_a_time"], most) == (12, cores, cores)
    numbers = [round((np.median(frame) - 16) / 30) for frame in frames_of(tmp_path / "out.avi")]
    assert numbers == [number % 8 for number in range(12)]


def test_tracks_follow_objects():
    def boxes(*lefts):
        corners = np.array([[left, 10, left + 20, 40] for left in lefts], np.float32).reshape(-1, 4)
        return Detections(np.zeros(len(lefts), np.int64), corners, np.full(len(lefts), 0.9, np.float32))

    tracks = Tracks(30, 0.5)
    tracks.update(boxes(0, 100))
    first = tracks.update(boxes(2, 98))
    assert len(set(first)) == 2
    assert min(first) >= 0
    assert tracks.update(boxes(96, 4)) == first[::-1]
    assert tracks.update(boxes()) == []
    assert len(tracks) == 2


def test_a_loop_ends_by_number_and_holds_few_frames(video, detector, capsys):
    found = stream(capsys, video, "--onnx", detector, "--loop", "--frames", 300)
    assert 300 <= found["frames"] <= 302


def test_a_live_source_drops_what_is_late(detector, capsys, monkeypatch):
    """Frames come every millisecond, the network takes ten."""
    run = OrtRunner.run
    monkeypatch.setattr(OrtRunner, "run", lambda self, inputs: (time.sleep(0.01), run(self, inputs))[1])
    camera = servers.HttpCamera([400], pause_s=0.001)
    try:
        found = stream(capsys, camera.url, "--onnx", detector, "--frames", 20)
    finally:
        camera.close()
    assert found["frames"] >= 20
    assert found["dropped"] > 0
    assert found["sources"][0]["live"]
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_the_video_is_whole(video, detector, tmp_path, number, code):
    out = tmp_path / "out.avi"
    argv = [str(video), "--onnx", str(detector), "--loop", "--out", str(out), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fine_edge", "stream", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs in the background has its programs ignore Ctrl-C, and they hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _assert_whole_after(process, number, code, out, tmp_path)
    finally:
        process.kill()


def _assert_whole_after(process, number, code, out, tmp_path):
    limit = time.monotonic() + SECONDS
    while not any(path.stat().st_size > 50_000 for path in tmp_path.glob(".out.avi.partial-*/out.avi")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(number)
    said, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (code, "")
    found = json.loads(said)
    assert found["ended_early"]
    assert len(frames_of(out)) == found["frames"] > 12
    assert [path.name for path in tmp_path.iterdir()] == ["out.avi"]


def test_a_failure_in_a_stage_ends_all_and_is_one_line(detector, tmp_path, capsys):
    (tmp_path / "0.png").write_bytes(b"broken")
    (tmp_path / "1.png").write_bytes(b"broken")
    before = threading.active_count()
    assert command.exit_code(main, [str(tmp_path), "--onnx", str(detector)]) == 2
    assert "none of 2 pictures can be read" in " ".join(capsys.readouterr().err.split())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "2"], "2 is not a score"),
        (["--frames", "0"], "0 is no number of frames"),
        (["--out", "VIDEO"], "--out: it would replace a source"),
        (["--picture", "VIDEO"], "--picture: would replace clip.avi, which is named for something else as well"),
        (["--out", "drawn.mkv"], ".mkv is not written -> a file (.mp4, .avi, .webm), or a folder"),
        (["--show"], "--show: there is no screen here -> on a machine without a screen write a file"),
        (["VIDEO", "--out", "both.mp4"], "one video cannot hold several sources -> give a folder"),
    ],
)
def test_useless_options_are_one_line_before_any_work(video, detector, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    for screen in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(screen, raising=False)
    was = video.read_bytes()
    options = [str(video) if option == "VIDEO" else option for option in options]
    assert command.exit_code(main, [str(video), *options, "--onnx", str(detector)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
    assert video.read_bytes() == was
