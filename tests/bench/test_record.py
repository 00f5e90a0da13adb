import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.bench.compare import compare, differences
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.record import read_record, write_record
from fine_edge.errors import RecordError


def test_a_record_reads_back_as_it_was_written(record, tmp_path):
    row = replace(record.rows[1], rtx=RtxMemory(32.06, 37.2), params_m=None, ap=39.7)
    record = replace(record, rows=(record.rows[0], row), threads=2)
    write_record(record, tmp_path / "deep" / "a.json")
    assert read_record(tmp_path / "deep" / "a.json") == record


def test_the_json_has_the_stable_fields_and_derived_figures(record):
    data = json.loads(json.dumps(record.to_json()))
    row = data["rows"][1]
    stable = {"model", "attention", "params_m", "flops_g", "mem_mib", "fps", "latency_ms", "ratio", "ratio_ci", "ap"}
    assert stable | {"samples_ms", "unstable", "artifact_sha256", "random_weights", "weights_mib"} <= set(row)
    assert data["machine"]["cpu"] == "Test CPU"
    assert row["ratio"] == pytest.approx(1.2)
    assert row["ratio_ci"] == pytest.approx([1.2, 1.2])
    assert row["latency_ms"] == pytest.approx(1.2 * 407)
    assert row["fps"] == pytest.approx(5 / 2.0)
    assert row["latency_p90_ms"] is None
    assert row["ap"] is None
    assert data["harness"]["percent_of_baseline"] == pytest.approx(100 * 0.0006 / 407)


def broken(record, tmp_path, change):
    data = record.to_json()
    change(data)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("rows"), "broken"),
        (lambda d: d.update(rows=[]), "named once"),
        (lambda d: d["rows"].append(d["rows"][0]), "named once"),
        (lambda d: d.update(format=99), "format 99"),
        (lambda d: d["rows"][1].update(latency_ms=1.0), "latency_ms says 1.0"),
        (lambda d: d["rows"][1].update(fps=1.0), "fps says"),
        (lambda d: d["rows"][1].update(ratio=1.0), "ratio says"),
        (lambda d: d["rows"][1]["samples_ms"].pop(), "7 samples for 8 rounds"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, float("nan")), "no duration"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, -1), "no duration"),
        (lambda d: d["rows"][1].update(throughput=[]), "broken"),
        (lambda d: d.update(input_hw=[640]), "broken"),
        (lambda d: d.update(rounds="many"), "broken"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(record, tmp_path, change, words):
    assert words in broken(record, tmp_path, change)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format": 1}', "\xff\xfe", "[" * 100_000])
def test_a_file_that_is_no_record_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path / "none.json")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_record_never_gives_a_traceback(record, tmp_path, data):
    write_record(record, tmp_path / "a.json")
    whole = (tmp_path / "a.json").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 3))
    (tmp_path / "cut.json").write_bytes(whole[:cut])
    with pytest.raises(RecordError):
        read_record(tmp_path / "cut.json")


def test_like_records_are_compared_model_by_model(record, with_samples):
    table = compare(record, with_samples([2.4 * (400 + 2 * i) for i in range(8)]))
    (base, fine) = table.rows
    assert base[:4] == ["rtdetr_r18", "407.00", "407.00", "1.000"]
    assert fine[3] == "2.000"
    assert fine[5:] == ["1.200", "2.400"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backend": "tensorrt"}, "backend: onnxruntime-cpu / tensorrt"),
        ({"precision": "fp16"}, "precision: fp32 / fp16"),
        ({"input_hw": (320, 640)}, "input size: 640x640 / 320x640"),
        ({"threads": 1}, "threads: None / 1"),
        ({"machine": {"cpu": "Other CPU"}}, "cpu: Test CPU / Other CPU"),
    ],
)
def test_unlike_records_are_refused_with_the_difference_named(record, changes, named):
    other = replace(record, **changes)
    assert named in differences(record, other)
    with pytest.raises(RecordError, match=named):
        compare(record, other)


def test_records_without_a_common_model_are_refused(record):
    other = replace(record, rows=tuple(replace(row, model=f"x{row.model}") for row in record.rows))
    with pytest.raises(RecordError, match="no model in common"):
        compare(record, other)


def test_a_newer_library_is_noted_but_not_refused(record):
    libraries = {**record.machine["libraries"], "onnxruntime": "9.9"}
    table = compare(record, replace(record, machine={**record.machine, "libraries": libraries}))
    assert any("onnxruntime" in note and "9.9" in note for note in table.notes)
