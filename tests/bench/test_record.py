import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.bench.compare import compare, differences
from fine_edge.bench.measure import Slice
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.record import read_record, write_record
from fine_edge.errors import RecordError


def test_a_record_reads_back_as_it_was_written(record, tmp_path):
    row = replace(record.rows[1], rtx=RtxMemory(32.06, 37.2), params_m=None, accuracy={"ap": 39.7, "ap50": 58.1})
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


def test_a_record_of_groups_reads_back_as_it_was_written(pairs_record, tmp_path):
    write_record(pairs_record, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == pairs_record


def test_the_ratio_of_a_row_is_against_its_own_baseline(pairs_record):
    rows = json.loads(json.dumps(pairs_record.to_json()))["rows"]
    assert [row["ratio"] for row in rows] == pytest.approx([1, 1.02, 1, 1.05])
    assert [row["baseline"] for row in rows] == ["rtdetr_r18", "rtdetr_r18", "yolov8s", "yolov8s"]
    assert [row.model for row in pairs_record.baselines] == ["rtdetr_r18", "yolov8s"]
    assert pairs_record.harness_percent == pytest.approx(100 * 0.0006 / 103.5)  # of the fastest


@pytest.mark.parametrize("format_", [1, 2, 4, True, "3", None])
def test_a_record_of_another_format_is_refused_with_a_hint(record, tmp_path, format_):
    text = broken(record, tmp_path, lambda data: data.update(format=format_))
    assert text.endswith(
        f"record format {format_}, this version reads 3 -> measure again: python -m fine_edge bench --json FILE"
    )


def test_a_cut_off_field_is_named_although_it_has_a_default(device_record, tmp_path):
    def cut(data):
        del data["rows"][1]["state"]["snapshots"][0]["gpu_mhz"]

    assert "missing required field rows[1].state.snapshots[0].gpu_mhz" in broken(device_record, tmp_path, cut)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["rows"][3].update(baseline="nothing"), "yolov8s_fine: nothing is no baseline"),
        (lambda d: d["rows"][3].update(baseline="rtdetr_r18_fine"), "rtdetr_r18_fine is no baseline"),
        (lambda d: d["rows"][3].update(baseline="rtdetr_r18"), "16 samples for 8 rounds"),
        (lambda d: d["rows"][3].update(baseline="yolov8s_fine"), "ratio says"),
        (lambda d: d["rows"][3].update(input_hw=None), "rows[3].input_hw: expected array, got null"),
        (lambda d: d["rows"][3].update(input_hw=[640]), "broken"),
        (lambda d: d.update(input_hw=[640, 640]), "the record says"),
        (lambda d: d.update(rounds=9), "a row has 8 samples for 9 rounds"),
        (lambda d: d["rows"][3].update(accuracy={"ap": "good"}), "broken"),
        (lambda d: d["groups"][0].update(process_peak_mib=-1), "groups[0].process_peak_mib: expected float >= 1e-12"),
        (lambda d: d["groups"][0].pop("baseline"), "broken"),
    ],
)
def test_a_record_whose_groups_contradict_each_other_is_refused(pairs_record, tmp_path, change, words):
    slower = tuple(pairs_record.rows[3].samples_ms) * 2
    longer = replace(pairs_record.rows[2], samples_ms=tuple(pairs_record.rows[2].samples_ms) * 2)
    rows = (*pairs_record.rows[:2], longer, replace(pairs_record.rows[3], samples_ms=slower))
    rows = tuple(replace(row, input_hw=(320, 320)) if row is longer else row for row in rows)
    assert words in broken(replace(pairs_record, rows=rows, input_hw=None), tmp_path, change)


def test_a_devices_record_reads_back_as_it_was_written(device_record, tmp_path):
    record = replace(device_record, cuda_graph=True, estimate=True)
    row = replace(record.rows[1], precision="fp16-weak", engine=replace(record.rows[1].engine, kernels=None))
    record = replace(record, rows=(record.rows[0], row))
    write_record(record, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == record


def test_a_devices_record_from_before_there_were_notes_is_read(device_record, tmp_path):
    data = json.loads(json.dumps(device_record.to_json()))
    for row in data["rows"]:
        del row["state"]["verdict"]["notes"]
        for snapshot in row["state"]["snapshots"]:
            del snapshot["emc_max_mhz"]
    (tmp_path / "old.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_record(tmp_path / "old.json") == device_record


def test_a_devices_json_has_the_medians_beside_the_samples(device_record):
    row = json.loads(json.dumps(device_record.to_json()))["rows"][0]
    assert row["compute_median_ms"] == pytest.approx(407 / 30 - 0.5)
    assert row["end_to_end_median_ms"] == pytest.approx(407 / 30 + 3)
    assert row["state"]["verdict"] == {"stamp": "VALID", "reasons": [], "notes": []}
    assert row["engine"]["activation_mib"] == 29.6
    assert row["mem_mib"] is None


def leaves(data, place=""):
    """Every value of a JSON document with its place, in order."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, f"{place}/{key}")
    else:
        yield place, data


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "bench" / "results").glob("*.json")), ids=lambda p: p.stem
)
def test_a_committed_record_is_written_as_it_was_read(path, tmp_path):
    write_record(read_record(path), tmp_path / "again.json")
    again, before = (list(leaves(json.loads(file.read_bytes()))) for file in (tmp_path / "again.json", path))
    # Python 3.12 sums more exactly than older ones: derived figures differ in their last digit.
    assert [place for place, _ in again] == [place for place, _ in before]
    for (place, value), (_, expected) in zip(again, before, strict=True):
        assert type(value) is type(expected), place
        assert value == (pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected), place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["rows"][0]["compute_ms"].pop(), "7 compute samples for 8 rounds"),
        (lambda d: d["rows"][0]["end_to_end_ms"].append(1.0), "rows have [8, 9] end-to-end samples"),
        (lambda d: d["rows"][0].update(compute_median_ms=1.0), "compute_median_ms says 1.0"),
        (lambda d: d["rows"][0].update(end_to_end_median_ms=None), "end_to_end_median_ms says None"),
        (lambda d: d["rows"][0].update(compute_ms=None), "compute_median_ms says"),
        (lambda d: d["rows"][0]["compute_ms"].__setitem__(0, 0), "rows[0].compute_ms[0]: expected float >="),
        (lambda d: d["rows"][0]["engine"].pop("plan_mib"), "broken"),
        (lambda d: d["rows"][0]["engine"].update(weights_mib="heavy"), "broken"),
        (
            lambda d: d["rows"][0]["state"]["verdict"].update(stamp="FINE"),
            "rows[0].state.verdict.stamp: invalid enum value",
        ),
        (lambda d: d["rows"][0]["state"].update(snapshots=[{}]), "broken"),
        (lambda d: d["rows"][0]["state"].update(energy_mj_per_image=-1), "energy_mj_per_image: expected float >="),
        (lambda d: d.update(platform="Orin"), "broken"),
    ],
)
def test_a_devices_record_that_contradicts_itself_is_refused(device_record, tmp_path, change, words):
    assert words in broken(device_record, tmp_path, change)


def broken(record, tmp_path, change):
    data = json.loads(json.dumps(record.to_json()))
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
        (lambda d: d["rows"][1].update(fps="2.5"), "fps says 2.5"),
        (lambda d: d["rows"][1].update(ap=39.7), "ap says 39.7, the samples say None"),
        (lambda d: d.update(quick="no"), "quick: expected bool, got str"),
        (lambda d: d["rows"][1]["samples_ms"].pop(), "7 samples for 8 rounds"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, float("nan")), "NaN is no number"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, -1), "rows[1].samples_ms[0]: expected float >="),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, "400"), "expected float, got str"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, True), "expected float, got bool"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, None), "expected float, got null"),
        (lambda d: d["rows"][1]["samples_ms"].__setitem__(0, 10**400), "number out of range"),
        (lambda d: d["rows"][1].update(samples_ms=[]), "rows[1].samples_ms: expected array of length >= 1"),
        (lambda d: d["rows"][1].update(weights_mib="12"), "rows[1].weights_mib: expected float, got str"),
        (lambda d: d["rows"][1].update(flops_g=-1), "rows[1].flops_g: expected float >= 0"),
        (lambda d: d["harness"].update(latency_ms=None), "harness.latency_ms: expected float, got null"),
        (lambda d: d.update(threads=1.5), "threads: expected int | null, got float"),
        (lambda d: d.update(input_hw=[-1, 640]), "input_hw[0]: expected int >= 1"),
        (lambda d: d["machine"].update(libraries=["numpy"]), "machine.libraries: expected object"),
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
    with pytest.raises(RecordError, match="no such file"):
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
    table = compare(record, with_samples([2.4 * (400 + 2 * i) for i in range(8)])).table
    (base, fine) = table.rows
    assert base[:4] == ["rtdetr_r18", "407.00", "407.00", "1.000"]
    assert fine[3] == "2.000"
    assert fine[5:] == ["1.200", "2.400"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backend": "tensorrt"}, "backend: onnxruntime-cpu / tensorrt"),
        ({"precision": "fp16"}, "precision: fp32 / fp16"),
        ({"threads": 1}, "threads: None / 1"),
        ({"machine": {"cpu": "Other CPU"}}, "cpu: Test CPU / Other CPU"),
        ({"estimate": True}, "estimate: False / True"),
        ({"cuda_graph": True}, "CUDA graph: False / True"),
        ({"platform": {"tensorrt": "10.7.0"}}, "platform tensorrt: None / 10.7.0"),
    ],
)
def test_unlike_records_are_refused_with_the_difference_named(record, changes, named):
    other = replace(record, **changes)
    assert named in differences(record, other)
    with pytest.raises(RecordError, match=named):
        compare(record, other)


def test_another_input_size_of_all_rows_is_named_once(record):
    rows = tuple(replace(row, input_hw=(320, 640)) for row in record.rows)
    assert differences(record, replace(record, rows=rows, input_hw=(320, 640))) == ["input size: 640x640 / 640x320"]


def test_a_model_of_another_input_size_is_named(pairs_record):
    rows = tuple(replace(row, input_hw=(320, 320)) if row.model == "yolov8s" else row for row in pairs_record.rows)
    other = replace(pairs_record, rows=rows, input_hw=None)
    assert differences(pairs_record, other) == ["input size of yolov8s: 640x640 / 320x320"]


def test_records_without_a_common_model_are_refused(record):
    other = replace(record, rows=tuple(replace(row, model=f"x{row.model}") for row in record.rows))
    with pytest.raises(RecordError, match="no model in common"):
        compare(record, other)


def test_a_newer_library_is_noted_but_not_refused(record):
    libraries = {**record.machine["libraries"], "onnxruntime": "9.9"}
    table = compare(record, replace(record, machine={**record.machine, "libraries": libraries})).table
    assert any("onnxruntime" in note and "9.9" in note for note in table.notes)


def test_power_modes_and_precisions_of_rows_must_be_alike(device_record):
    row = device_record.rows[1]
    weak = replace(device_record, rows=(device_record.rows[0], replace(row, precision="fp16-weak")))
    assert differences(device_record, weak) == ["precision of rtdetr_r18_fine: fp16 / fp16-weak"]
    slow = tuple(replace(snapshot, mode="15W") for snapshot in row.state.snapshots)
    rows = tuple(replace(r, state=replace(r.state, snapshots=slow)) for r in device_record.rows)
    assert differences(device_record, replace(device_record, rows=rows)) == ["power mode: 25W / 15W"]


def test_comparing_devices_says_which_rows_are_not_to_be_quoted(device_record):
    table = compare(device_record, device_record).table
    assert "Orin Nano" in table.title
    assert "A holds rows that are not to be quoted: rtdetr_r18_fine THROTTLED." in table.notes


def test_warnings_of_one_kind_are_one_line(with_samples):
    shaky = with_samples([300, 600, 350, 700, 400, 500, 900, 450])
    assert len(shaky.warnings()) == 1
    assert shaky.warnings_in_short() == [
        "1 of 2 rows scatter by more than 5 %: close other programs",
        "1 of 1 ratios are not known to +-1 %: take more --rounds",
    ]


def test_fps_and_latency_of_unlike_load_are_warned_of_unless_queries_overlap(record):
    base, other = record.rows
    assert record.warnings_in_short() == []
    seconds = 2 * other.latency_ms / 1e3
    slow = replace(record, rows=(base, replace(other, throughput=(Slice(1, seconds),))))
    text = f"1 of 2 rows: FPS and latency are of unlike load ({1 / seconds:.2f} FPS, {other.latency_ms:.1f} ms)"
    assert slow.warnings() == slow.warnings_in_short() == [f"{text}: measure again"]
    assert replace(slow, backend="tensorrt").warnings() == []
    within = replace(record, rows=(base, replace(other, throughput=(Slice(1, 1.2 * other.latency_ms / 1e3),))))
    assert within.warnings() == []
