"""From JPEGs in memory to what is found in them: stages, overlapped throughput, and how both are shown."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from framed import write_framed_detector
from PIL import Image
from terminal import WIDTHS, assert_fits
from tiny_detector import write_detector

from fine_edge.bench import end_to_end, measure, memory, prepare, session
from fine_edge.bench.backends import BenchOptions
from fine_edge.bench.device import BoardWatch
from fine_edge.bench.end_to_end import Way, decoded, encoded, measure_overlapped, measure_stages
from fine_edge.bench.measure import Slice
from fine_edge.bench.picture import draw_stages
from fine_edge.bench.record import read_record, write_record
from fine_edge.bench.row import EndToEnd
from fine_edge.bench.table import to_table
from fine_edge.cli import bench as cli
from fine_edge.cli.report import main as report
from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError, RecordError
from fine_edge.images import NamedImage, sample_photographs
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.preprocess import Preprocessing
from fine_edge.runners.base import Timing

SIDE = 64
BOXES = {
    "labels": np.array([[1]]),
    "boxes_xyxy": np.array([[[0, 0, 32, 64]]], np.float32),
    "scores": np.array([[0.9]], np.float32),
}
MASKS = np.ones((1, 1, 28, 28), np.float32)
OUTPUTS = {
    "detection": BOXES,
    "instance": {**BOXES, "masks": MASKS},
    "semantic": {"classes": np.zeros((1, SIDE, SIDE), np.int64)},
    "panoptic": {**BOXES, "masks": MASKS, "stuff": np.full((1, SIDE, SIDE), 2)},
}
DEVICE = Timing(3.0, compute_ms=2.0, h2d_ms=0.75, d2h_ms=0.25)


class Fixed:
    """A runner with answers and times that a test chose."""

    name = "fixed"

    def __init__(self, outputs, timing=DEVICE):
        self.outputs, self.timing = outputs, timing
        self.runs = 0

    def run(self, inputs):
        assert inputs["images"].shape == (1, 3, SIDE, SIDE)
        self.runs += 1
        return self.outputs

    def run_timed(self, inputs):
        return self.run(inputs), self.timing


def way(task, outputs):
    contract = Contract(
        model="tiny",
        artifacts=(Artifact("tiny.onnx", "fp32", "0"),),
        inputs=(TensorSpec("images", "float32", (1, 3, SIDE, SIDE), "pictures"),),
        outputs=(),
        preprocessing=Preprocessing(),
        postprocessed=True,
        labels=("__background__", "cat", "grass", "things"),
        opset=18,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
        task=task,
    )
    grey = NamedImage("grey", np.full((90, 160, 3), 100, np.uint8))
    return Way(Fixed(outputs), contract, encoded([grey]))


@pytest.fixture
def staged(device_record):
    """A device's record with stages of eight rounds; made up."""
    stages = EndToEnd(
        decode_ms=(4.0,) * 8,
        preprocess_ms=(2.0,) * 7 + (3.0,),
        h2d_ms=(0.5,) * 8,
        compute_ms=(12.0,) * 8,
        d2h_ms=(0.25,) * 8,
        postprocess_ms=(0.5,) * 8,
        total_ms=(20.0,) * 7 + (20.5,),
        overlapped=(Slice(70, 1.0), Slice(74, 1.0)),
        energy_mj_per_image=221.5,
    )
    rows = tuple(replace(row, end_to_end=stages) for row in device_record.rows)
    return replace(device_record, rows=rows)


@pytest.mark.parametrize("task", OUTPUTS)
def test_every_task_goes_through_all_stages_one_by_one_and_side_by_side(task, monkeypatch):
    monkeypatch.setattr(end_to_end, "SLICE_MS", 10.0)
    ways = [way(task, OUTPUTS[task]), way(task, OUTPUTS[task])]
    rounds = []
    passages = measure_stages(ways, 3, lambda: rounds.append(None))
    assert len(rounds) == 3
    assert [one.runner.runs for one in ways] == [6, 6]  # each sample after an untimed passage
    slices = measure_overlapped(ways, 2, lambda: None, lambda _index: nullcontext())
    assert all(part.queries >= 1 and part.wall_s > 0 for part in (*slices[0], *slices[1]))
    found = end_to_end.end_to_end(ways[0], passages[0], slices[0], 5.0)
    found.check()
    assert (found.h2d_ms, found.compute_ms, found.d2h_ms) == ((0.75,) * 3, (2.0,) * 3, (0.25,) * 3)
    assert found.fps_overlapped == sum(p.queries for p in slices[0]) / sum(p.wall_s for p in slices[0])
    assert found.fps_one_by_one == pytest.approx(3000 / sum(passage.total_ms for passage in passages[0]))
    assert not found.in_graph


def test_an_answer_of_nan_ends_the_measurement():
    broken = way("detection", {**BOXES, "scores": BOXES["scores"] * np.nan})
    with pytest.raises(ArtifactError, match="NaN"):
        broken.passage(0)
    with pytest.raises(ArtifactError, match="NaN"):
        broken.overlapped(10.0)


def test_a_jpeg_is_decoded_to_the_same_picture_without_opencv(monkeypatch):
    photograph = sample_photographs()[0]
    (jpeg,) = encoded([photograph])
    assert jpeg[:2] == b"\xff\xd8"
    here = decoded(jpeg)
    monkeypatch.setattr(end_to_end, "has_opencv", lambda: False)
    for pixels in (here, decoded(jpeg)):
        assert pixels.shape == photograph.pixels.shape
        assert np.abs(pixels.astype(int) - photograph.pixels).mean() < 4


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Measures the suite of two small detectors, which are tiny ones here; gives the arguments of a command."""

    def export(request, folder):
        if request.frame:
            return write_framed_detector(folder, request.frame, name=request.model)
        path = write_detector(folder, name=request.onnx_name().removesuffix(".onnx"))
        contract = replace(read_contract(contract_path(path)), model=request.model, cost={"params": 1, "flops": 2})
        contract_path(path).write_text(contract.to_text(), encoding="utf-8")
        return path

    monkeypatch.setattr(prepare, "exported", export)
    monkeypatch.setattr(session, "require_library", lambda *_arguments, **_options: None)
    monkeypatch.setattr(memory, "measure_peak_mib", lambda _path, _threads, _batch: 123.0)
    monkeypatch.setattr("fine_edge.bench.backends.SLICE_MS", 5.0)
    monkeypatch.setattr(end_to_end, "SLICE_MS", 20.0)
    monkeypatch.setattr(measure, "WARMUP_MS", 1.0)
    Image.fromarray(np.full((90, 160, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    where = ["--images", str(tmp_path), "--out", str(tmp_path / "e"), "--picture", str(tmp_path / "p.png")]
    return ["--suite", "small", "--rounds", "2", "--end-to-end", *where]


def test_a_host_has_no_copies_and_shows_them_as_dashes(measured, tmp_path, capsys):
    path = tmp_path / "r.json"
    assert cli.main([*measured, "--json", str(path), "--csv", str(tmp_path / "t.csv")]) == 0
    record = read_record(path)
    assert [row.model for row in record.rows] == ["fcos_mobilenetv3", "fcos_mobilenetv3_fine"]
    for row in record.rows:
        stages = row.end_to_end
        assert (stages.h2d_ms, stages.d2h_ms, stages.energy_mj_per_image, stages.in_graph) == (None, None, None, False)
        assert len(stages.total_ms) == len(stages.compute_ms) == 2
        assert row.end_to_end_ms == stages.after_decode_ms
    header, first, _ = [line.split(",") for line in (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()]
    cells = dict(zip(header, first, strict=True))
    assert (cells["H2D (ms)"], cells["D2H (ms)"]) == ("-", "-")
    assert "decode p90 (ms)" not in cells  # of two samples
    assert float(cells["decode (ms)"]) > 0
    assert "H2D and D2H do not exist on this backend" in " ".join(to_table(record).notes)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 1000
    capsys.readouterr()
    assert cli.main(["show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["rows"][0]["end_to_end"]
    assert shown["h2d_median_ms"] is None
    assert shown["fps_overlapped"] == pytest.approx(record.rows[0].end_to_end.fps_overlapped)


def test_graphs_that_take_frames_say_where_their_preprocessing_is(measured, tmp_path, capsys):
    assert cli.main([*measured, "--frame", "90x160", "--json", str(tmp_path / "r.json")]) == 0
    record = read_record(tmp_path / "r.json")
    assert all(row.end_to_end.in_graph for row in record.rows)
    assert "compute with preprocessing (ms)" in [column.title for column in to_table(record).columns]
    assert "Preprocessing is inside compute: these graphs take frames." in to_table(record).notes
    legend = draw_stages(record).legends[0].get_texts()
    assert "compute with preprocessing" in [text.get_text() for text in legend]
    assert "160x90" in capsys.readouterr().out


def test_outputs_that_nobody_decodes_are_refused_before_anything_is_measured():
    with pytest.raises(ConfigError, match="gives detections"):
        BenchOptions(suite="exporters", only=("rtdetr_r18",), end_to_end=True)
    assert BenchOptions(suite="exporters", end_to_end=True).end_to_end_rounds == 64
    assert BenchOptions(suite="small", end_to_end=True, quick=True).end_to_end_rounds == 6
    assert BenchOptions(suite="small").end_to_end_rounds == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_stages_stand_in_tables_of_their_own(staged, width):
    table = to_table(staged)
    text = assert_fits(table, width)
    assert "overlapped" in text
    assert len(table.brief) <= 5
    cells = dict(zip([column.title for column in table.columns], table.rows[0], strict=True))
    assert [cells[f"{name} (ms)"] for name in ("decode", "preprocess", "H2D", "compute", "D2H", "postprocess")] == [
        "4.00",
        "2.00",
        "0.50",
        "12.00",
        "0.25",
        "0.50",
    ]
    assert (cells["total (ms)"], cells["FPS one by one"], cells["FPS overlapped"]) == ("20.00", "49.8", "72.0")
    assert cells["Energy overlapped (mJ/image)"] == "221.5"


def in_graph(record):
    return replace(
        record, rows=tuple(replace(row, end_to_end=replace(row.end_to_end, in_graph=True)) for row in record.rows)
    )


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("width_in", [9, 4.6])
def test_the_picture_has_a_bar_a_row_and_says_where_it_was_measured(staged, width_in, frames):
    figure = draw_stages(in_graph(staged) if frames else staged, width_in)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches[:7]] == [4.0, 2.0, 0.5, 12.0, 0.25, 0.5, pytest.approx(0.75)]
    assert len(axes.patches) == 14
    assert "Jetson Orin Nano" in figure.legends[0].get_title().get_text().replace("\n", " ")
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "host's copies"
    texts = [text for text in (*axes.texts, *axes.get_yticklabels()) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)] == []
    for box in (*boxes, figure.legends[0].get_window_extent()):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_the_page_draws_the_stages(staged, tmp_path):
    write_record(staged, tmp_path / "r.json")
    assert read_record(tmp_path / "r.json") == staged
    assert report([str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]) == 0
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.count("<h3>From a JPEG in memory to detections</h3>") == 1
    assert "the median of each stage, one after the other" in html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda way: way["decode_ms"].append(4.0), "samples for 8 totals"),
        (lambda way: way.update(decode_ms=[400.0] * 8, decode_median_ms=400.0), "stages take 402.500 ms in round 1"),
        (lambda way: way.update(d2h_ms=None, d2h_median_ms=None), "one copy to or from the device without the other"),
        (lambda way: way.update(fps_overlapped=900.0), "end_to_end.fps_overlapped says 900.0, the samples say 72"),
        (lambda way: way.update(overlapped=[]), "overlapped"),
        (lambda way: way["compute_ms"].__setitem__(0, -1.0), "compute_ms"),
    ],
)
def test_stages_that_contradict_each_other_are_refused(staged, tmp_path, change, words):
    data = json.loads(json.dumps(staged.to_json()))
    change(data["rows"][0]["end_to_end"])
    (tmp_path / "r.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError, match=words):
        read_record(tmp_path / "r.json")


def test_overlapped_slices_have_an_energy_of_their_own(monkeypatch):
    class Rail:
        mw = 10_000.0

        def snapshot(self):
            return Snapshot(next(seconds), power_mw={"VDD_IN": self.mw})

    class Sampler:
        def __init__(self, board, _period_s):
            self.board, self.snapshots = board, []
            samplers.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            pass

    seconds, samplers, rail = iter(range(100)), [], Rail()
    monkeypatch.setattr("fine_edge.bench.device.time.monotonic", lambda: next(seconds))
    monkeypatch.setattr("fine_edge.bench.device.Sampler", Sampler)
    watched = BoardWatch(rail, 1)
    for overlapped, mw in ((False, 10_000.0), (True, 15_000.0)):
        rail.mw = mw
        with watched.throughput(), watched.slice_of(0, overlapped=overlapped):
            samplers[-1].snapshots += [rail.snapshot(), rail.snapshot()]
    watched.finish()
    state = watched.state(0, [10.0] * 20, [Slice(100, 2.0)])
    assert state.energy_mj_per_image == pytest.approx(200.0)
    assert watched.overlapped_energy_mj(0, [Slice(50, 2.0)]) == pytest.approx(600.0)
    assert len(state.snapshots) == 6
