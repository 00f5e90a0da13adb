"""One artifact at several batches: measured, recorded, shown and drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from PIL import Image
from runners.engines import open_ports, plan_bytes, write_contract, write_engine
from runners.fake_cuda import COMPUTE_MS, COPY_MS, GRAPH_MS
from runners.fixtures import device  # noqa: F401 - a fixture
from terminal import WIDTHS, assert_fits
from tiny_bench import make_row, write_tiny_artifact

from fine_edge.bench import backends, measure
from fine_edge.bench import device as bench_device
from fine_edge.bench.batches import parse_batches
from fine_edge.bench.compare import compare
from fine_edge.bench.measure import Slice
from fine_edge.bench.picture import caption, draw
from fine_edge.bench.record import read_record, write_record
from fine_edge.bench.table import to_table
from fine_edge.cli.bench import main
from fine_edge.contract import contract_path, read_contract
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ConfigError, RecordError
from fine_edge.graph.identity import identity_of
from fine_edge.report.bench_page import to_html

SIDE = 8


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Short slices, and two pictures of unlike grey."""
    monkeypatch.setattr(backends, "SLICE_MS", 5.0)
    monkeypatch.setattr(bench_device, "SLICE_MS", 1.0)
    monkeypatch.setattr(measure, "WARMUP_MS", 1.0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, grey in (("a.png", 51), ("b.png", 204)):
        Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(folder / name)
    return [f"--{kind}={tmp_path / f'r.{kind}'}" for kind in ("json", "csv")] + [
        *("--images", str(folder), "--artifacts", str(tmp_path), "--picture", str(tmp_path / "r.png"))
    ]


def open_artifact(folder):
    """A convolution that takes 1 to 4 pictures, with its contract."""
    path = write_tiny_artifact(folder, "tiny", SIDE)
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    shapes = {"image": ("n", 3, SIDE, SIDE), "map": ("n", 4, SIDE, SIDE)}
    ends = [[helper.make_tensor_value_info(name, T.FLOAT, shapes[name])] for name in ("image", "map")]
    conv = helper.make_node("Conv", ["image", "w"], ["map"], pads=[1] * 4)
    graph = helper.make_graph([conv], "tiny", *ends, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    contract = read_contract(contract_path(path)).of_batches((1, 2, 4))
    artifact = replace(contract.artifacts[0], sha256=identity_of(path))
    contract_path(path).write_text(replace(contract, artifacts=(artifact,)).to_text(), encoding="utf-8")
    return path


def test_onnx_runtime_at_three_batches(tmp_path, quick, monkeypatch, capsys):
    from fine_edge.runners.ort import OrtRunner

    fed, run = set(), OrtRunner.run
    monkeypatch.setattr(OrtRunner, "run", lambda self, inputs: (fed.add(inputs["image"].shape), run(self, inputs))[1])
    path = open_artifact(tmp_path)
    assert main([str(path), "--batches", "4,1,3", "--rounds", "2", *quick]) == 0
    record = read_record(tmp_path / "r.json")
    assert fed == {(batch, 3, SIDE, SIDE) for batch in (1, 3, 4)}
    assert [(row.model, row.batch) for row in record.rows] == [("tiny x 1", 1), ("tiny x 3", 3), ("tiny x 4", 4)]
    for row in record.rows:
        queries, wall_s = (sum(getattr(part, name) for part in row.throughput) for name in ("queries", "wall_s"))
        assert row.fps == pytest.approx(row.batch * queries / wall_s)
        assert row.image_ms == row.latency_ms / row.batch
        assert row.mem_mib is not None
    assert "Images/s" in capsys.readouterr().out
    assert (tmp_path / "r.csv").read_text().startswith("Batch,Images/s,")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("graph", [False, True])
def test_an_engine_is_loaded_once_for_each_batch(tmp_path, quick, device, graph):  # noqa: F811
    contract = write_contract(tmp_path, "tiny", "0" * 64).of_batches((1, 4, 8))
    contract_path(tmp_path / "tiny.fp16.onnx").write_text(contract.to_text(), encoding="utf-8")
    plan = plan_bytes(ports=open_ports((1, 4, 8)))
    engine = write_engine(tmp_path, plan, options=BuildOptions(batches=(1, 4, 8)))
    assert main([str(engine), "--batches=1,2,8", "--rounds", "2", *quick, *(["--cuda-graph"] if graph else [])]) == 0
    record = read_record(tmp_path / "r.json")
    assert (record.backend, record.precision, record.cuda_graph) == ("tensorrt", "fp16", graph)
    assert [row.batch for row in record.rows] == [1, 2, 8]
    compute_ms = GRAPH_MS if graph else COMPUTE_MS
    assert {row.samples_ms for row in record.rows} == {(COPY_MS + compute_ms + 3 * COPY_MS,) * 2}
    assert record.ratio(record.rows[2]).value == 1 / 8  # an eighth of the time for each picture
    assert device.what().count("deserialise") == 4  # the first one once more, to keep what all share out of it
    assert not device.memory


@pytest.fixture
def over_batches(record):
    """Batches of 1, 2 and 8 whose pictures take 10, 8 and 5 ms."""
    rows = []
    for batch, image_ms in ((1, 10.0), (2, 8.0), (8, 5.0)):
        row = make_row(f"yolov8s_fine x {batch}", None, [batch * (image_ms + i / 100) for i in range(8)])
        slices = (Slice(100, 100 * batch * image_ms / 1e3),)
        rows.append(replace(row, batch=batch, throughput=slices, baseline="yolov8s_fine x 1"))
    return replace(record, suite="batches", title="yolov8s_fine at batches of 1, 2, 8", rows=tuple(rows))


def test_the_record_is_of_pictures(over_batches, tmp_path):
    write_record(over_batches, tmp_path / "r.json")
    assert read_record(tmp_path / "r.json") == over_batches
    assert [row.fps for row in over_batches.rows] == pytest.approx([100, 125, 200])
    assert [over_batches.ratio(row).value for row in over_batches.rows] == pytest.approx([1, 0.8, 0.5], rel=5e-3)
    assert not over_batches.warnings()
    data = json.loads((tmp_path / "r.json").read_text())
    for change in ({"batch": 4}, {"batch": 0}, {"batch": "8"}):
        data["rows"][2] |= change
        (tmp_path / "r.json").write_text(json.dumps(data))
        with pytest.raises(RecordError):
            read_record(tmp_path / "r.json")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_fits(over_batches, width):
    text = assert_fits(to_table(over_batches), width)
    assert "Most images per second at batch 8: 200.0, 2.00 times those at batch 1" in " ".join(text.split())


def test_curves_and_page(over_batches):
    left, right = draw(over_batches).axes
    assert [list(line.get_ydata()) for line in left.lines] == [pytest.approx([100, 125, 200])]
    assert [line.get_label() for line in right.lines] == ["of a batch", "of a picture, its share"]
    assert caption(over_batches).startswith("Images per second")
    page = to_html([over_batches])
    assert "Images per second, and the latency" in page
    assert "Image over x 1" in page


def test_two_records_are_compared_batch_by_batch(over_batches):
    faster = [replace(row, samples_ms=tuple(ms / 2 for ms in row.samples_ms)) for row in over_batches.rows[:2]]
    table = compare(over_batches, replace(over_batches, rows=tuple(faster))).table
    assert [(row[0], row[3]) for row in table.rows] == [("yolov8s_fine x 1", "0.500"), ("yolov8s_fine x 2", "0.500")]


@pytest.mark.parametrize("text", ["", "1", "4,4", "0,1", "1,2,x", "-1,2", "1,999999", ",".join(map(str, range(1, 19)))])
def test_batches_that_are_none(text):
    with pytest.raises(ConfigError, match="--batches"):
        parse_batches(text)


def test_what_cannot_be_measured_is_one_line(tmp_path, quick):
    static = write_tiny_artifact(tmp_path / "static", "tiny", SIDE)
    for path, batches, words in (
        (static, "1,2", "takes one batch, 1 -> python -m fine_edge export tiny --batch 1:2"),
        (open_artifact(tmp_path), "1,8", "takes batches of 1 to 4, not all of 1:8"),
    ):
        with pytest.raises(ConfigError, match=words):
            main([str(path), "--batches", batches, *quick])
    with pytest.raises(ConfigError, match="an engine runs in TensorRT"):
        main([str(tmp_path / "x.engine"), "--batches", "1,2", "--backend", "ort", *quick])
