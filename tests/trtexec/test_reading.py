import csv
from pathlib import Path

import pytest
import trtexec_logs as logs
from published import published

from fine_edge.errors import RecordError
from fine_edge.trtexec.log import power_mode
from fine_edge.trtexec.reading import is_json, read_trtexec_logs


def read(tmp_path, text):
    (log,) = read_trtexec_logs(logs.write(tmp_path / "a.log", text))
    return log


def test_a_run_with_graph_and_spin_wait_is_read_whole(tmp_path):
    log = read(tmp_path, logs.FINE)
    assert (log.tensorrt, log.gpu, log.sm, log.sms, log.memory_mib) == ("10.7.0", "Orin", 87, 8, 7619)
    assert (log.latency_ms, log.compute.median_ms, log.throughput_qps) == (15.042, 14.6934, 67.8516)
    assert (log.h2d.median_ms, log.d2h.median_ms, log.enqueue.median_ms) == (0.337891, 0.0107, 0.0068)
    assert log.latency.percentiles_ms == {"90": 15.042, "99": 15.042}
    assert (log.activation_mib, log.engine_mib, log.weights_mib, log.aux_streams) == (66.1519, 41, None, 7)
    assert (log.cuda_graph, log.spin_wait, log.transfers, log.streams) == (True, True, True, 1)
    assert (log.queries, log.walltime_s, log.warmup_ms, log.batch) == (1200, 17.6857, 200, 1)
    assert log.inputs == {"images": (1, 3, 640, 640), "orig_target_sizes": (1, 2)}
    assert (log.averages.of_queries, log.averages.compute_ms) == (50, (14.7346, 14.6934))
    assert (log.precision, log.passed, log.is_unstable, log.variance_percent) == ("fp16", True, True, 2.4294)
    assert log.warnings == ()


def test_the_builders_figures_are_read_without_a_latency(tmp_path):
    log = read(tmp_path, logs.BUILDER)
    assert (log.activation_mib, round(log.weights_mib, 2)) == (69365248 / 2**20, 37.61)
    assert (round(log.scratch_mib, 2), log.steps, log.build_s) == (52.28, 178, 388.401)
    assert (log.precision, log.engine_mib, log.tensorrt, log.cuda_graph) == ("fp16", 41, None, None)
    assert log.why_untimed == "holds the build of an engine and no inference"


def test_a_wait_in_h2d_is_no_latency_but_compute_and_throughput_count(tmp_path):
    log = read(tmp_path, logs.WAITING)
    assert (log.latency_ms, log.compute.median_ms, log.throughput_qps) == (None, 30.7285, 32.3939)
    assert "H2D holds the wait for the query before; 23.72 ms" in log.why_no_latency
    without_inputs = "\n".join(line for line in logs.WAITING.splitlines() if "binding" not in line)
    assert read(tmp_path, without_inputs).latency_ms is None


@pytest.mark.parametrize(("h2d_ms", "is_latency"), [(0.886, True), (4.9, True), (5.2, False), (21.98, False)])
def test_a_copy_of_4_9_mb_takes_at_most_what_a_gigabyte_a_second_does(tmp_path, h2d_ms, is_latency):
    log = read(tmp_path, logs.run(logs.summary(60.0, 30.0, 30.0, h2d_ms), logs.FP32))
    assert (log.latency_ms is not None) is is_latency


def test_without_transfers_only_compute_is_known(tmp_path):
    log = read(tmp_path, logs.UNCOPIED)
    assert (log.latency_ms, log.compute.median_ms, log.transfers) == (None, 14.6934, False)
    assert "--noDataTransfers" in log.why_no_latency


@pytest.mark.parametrize(
    ("clocks", "mode"),
    [
        ({"memory_ghz": 0.612}, "15W"),
        ({"memory_ghz": 0.918}, "25W"),
        ({"memory_ghz": 1.02}, "MAXN_SUPER"),
        ({"compute_ghz": 0.624, "memory_ghz": 0.624}, "15W"),
        ({"compute_ghz": 0.918}, None),  # an Orin NX
        ({"mib": 15656}, None),
        ({"sms": 16}, None),
        ({"memory_ghz": 0.7}, None),
        ({"name": "NVIDIA GeForce RTX 4090"}, None),
    ],
)
def test_the_mode_is_told_by_the_gpus_cap_of_an_orin_nano_alone(tmp_path, clocks, mode):
    assert power_mode(read(tmp_path, logs.run([*logs.device(**clocks), *logs.summary()]))) == mode


@pytest.mark.parametrize(
    ("release", "version"),
    [("v8601", "8.6.1"), ("v8502", "8.5.2"), ("v100300", "10.3.0"), ("v101602", "10.16.2"), ("v10.7.0", "10.7.0")],
)
def test_releases_are_read_off_the_first_line(tmp_path, release, version):
    assert read(tmp_path, logs.run(logs.summary(), release=release)).tensorrt == version


@pytest.mark.parametrize(
    ("flags", "line", "precision"),
    [
        ("--onnx=a.onnx --fp16", "Precision: FP32+FP16", "fp16"),
        ("--onnx=a.onnx --best", "Precision: FP32+FP16+INT8 (obey precision constraints)", "fp16+int8"),
        ("--onnx=a.onnx", "Precision: FP32", "fp32"),
        ("--onnx=a.onnx --stronglyTyped", "Precision: Strongly Typed", "strongly typed"),
        ("--loadEngine=a.plan", "Precision: FP32", None),  # 8.6 prints what a build would be, and builds nothing
        ("--loadEngine=a.plan --best", "", "fp16+int8"),
    ],
)
def test_the_precision_is_that_of_the_options_and_unknown_of_a_loaded_plan(tmp_path, flags, line, precision):
    assert read(tmp_path, logs.run([line, *logs.summary()], flags)).precision == precision


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("[I]", "\x1b[32m[I]\x1b[0m").encode(),
        lambda text: b"\xff\xfe broken \x80\n".replace(b"\xff\xfe", b"") + text.encode(),
        lambda text: text.replace(f"\n{logs.STAMP} [I] Throughput", f" torn{logs.STAMP} [I] Throughput").encode(),
        lambda text: (f"{logs.STAMP} [W] [TRT] an engine of another device\n" + text).encode(),
        lambda text: text.replace(f"{logs.STAMP} ", "").encode(),
    ],
    ids=["crlf", "bom", "utf-16", "colours", "no utf-8", "torn", "stderr first", "no times"],
)
def test_what_shells_make_of_a_log_is_read(tmp_path, change):
    (tmp_path / "a.log").write_bytes(change(logs.FINE))
    (log,) = read_trtexec_logs(tmp_path / "a.log")
    assert (log.latency_ms, log.throughput_qps, log.gpu, log.passed) == (15.042, 67.8516, "Orin", True)


def test_runs_in_one_file_are_taken_each(tmp_path):
    found = read_trtexec_logs(logs.write(tmp_path / "a.log", logs.BUILDER + "\n" + logs.FINE + logs.WAITING))
    assert [log.latency_ms for log in found] == [None, 15.042, None]
    assert [log.steps for log in found] == [178, None, None]


def test_summaries_without_the_lines_between_them_are_runs_too(tmp_path):
    summaries = [logs.summary(), logs.summary(18.6641, 18.3164, 54.4515)]
    found = read_trtexec_logs(
        logs.write(tmp_path / "a.log", "\n".join(line for lines in summaries for line in lines[9:]))
    )
    assert [(log.latency_ms, log.throughput_qps) for log in found] == [(15.042, 67.8516), (18.6641, 54.4515)]
    assert [log.tensorrt for log in found] == [None, None]


def test_8_6_tells_the_memory_of_its_context_in_verbose_logs_alone(tmp_path):
    lines = [*logs.device(name="Tesla T4"), *logs.summary()]
    lines[lines.index("Created execution context with device memory size: 66.1519 MiB")] = (
        "[TRT] Allocated activation device memory of size 289871872"
    )
    log = read(tmp_path, logs.run(lines, "--loadEngine=a.trt --verbose", "v8601"))
    assert (log.tensorrt, round(log.activation_mib, 2), log.is_build) == ("8.6.1", 276.44, False)
    assert (log.cuda_graph, log.spin_wait, log.transfers, log.streams) == (False, False, True, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (logs.FINE.partition("GPU Compute Time")[0], "was cut before the end of the performance summary"),
        (logs.run(["Building"], passed="FAILED"), "is of a run that failed"),
        (logs.FINE.replace("Throughput: 67.8516", "Throughput: nan"), "holds no performance summary"),
        (logs.FINE.replace("GPU Compute Time: min = 14.6934", "GPU Compute Time: min = 1e999"), "no performance"),
        (logs.run(["[TRT] Total Activation Memory: 18022400"]), "holds the build of an engine"),
    ],
)
def test_a_run_without_times_says_why(tmp_path, text, words):
    assert words in read(tmp_path, text).why_untimed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no log of trtexec"),
        (b"[10-01-2026 12:00:00] RAM 3308/7607MB GR3D_FREQ 99%\n", "is no log of trtexec"),
        (b"\x89PNG\0\0", "is no text"),
        (b"\xff\xfe\x00", "is no log of trtexec"),
        (logs.FINE.replace("max = 15.042", "max = 1").encode(), "figures beyond min and max"),
        (b"&&&& RUNNING TensorRT.trtexec [TensorRT v100700] # trtexec\n" * 1001, "more than 1000 runs"),
        (b"x" * 200_000, "is no log of trtexec"),
    ],
)
def test_other_files_give_one_line(tmp_path, data, words):
    (tmp_path / "a.log").write_bytes(data)
    with pytest.raises(RecordError, match=words) as caught:
        read_trtexec_logs(tmp_path / "a.log")
    assert "->" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_names_cannot_act_on_a_terminal(tmp_path):
    text = logs.FINE.replace("Selected Device: Orin", "Selected Device: Or\x07in\u202e").replace("images", "im\x08")
    log = read(tmp_path, text)
    assert (log.gpu, next(iter(log.inputs))) == ("Or\\x07in\\u202e", "im\\x08")


@pytest.mark.parametrize(("walltime_s", "is_unstable"), [(3.0, True), (120.0, False)])
def test_scatter_below_the_step_of_the_clock_is_not_called_unstable(tmp_path, walltime_s, is_unstable):
    """8 % of 0.05 ms are 0.004 ms: less than 1/128 ms, in which times step after 100 s."""
    line = "[W] * GPU compute time is unstable, with coefficient of variance = 8%."
    log = read(tmp_path, logs.run([*logs.summary(0.06, 0.05, 1000, 0.005, walltime_s), line]))
    assert log.is_unstable is is_unstable
    assert log.step_ms == (1 / 4096 if is_unstable else 1 / 128)


def test_a_graph_that_could_not_be_captured_is_none(tmp_path):
    line = "[W] The specified --useCudaGraph flag has been ignored. The inference will be launched without it."
    log = read(tmp_path, logs.run(["CUDA Graph: Enabled", line, *logs.summary()]))
    assert (log.cuda_graph, log.warnings) == (False, (line[4:],))


def test_json_is_told_from_a_log(tmp_path):
    for text in ('[\n {"a": 1}]', "{}", "[]", ' \n["a"]'):
        assert is_json(logs.write(tmp_path / "f", text))
    for text in (logs.FINE, logs.BUILDER, "[I] a", ""):
        assert not is_json(logs.write(tmp_path / "f", text))


_TRIMMED = {"20260920T193239Z": "15W", "20260920T195049Z": "MAXN_SUPER"}


def test_the_published_logs_give_the_figures_of_the_table():
    folder = published("data", "jetson_public")
    checked = 0
    for row in csv.DictReader((folder / "measured.csv").read_text(encoding="utf-8").splitlines()):
        name = Path(row["source"].split()[-1]).name
        if name in _TRIMMED and row["throughput_qps"]:
            name = f"mobilenetv2_fp16_{_TRIMMED[name]}_bench.trimmed.log"
        path = next(folder.rglob(name), None) if name.endswith(".log") else None
        if path is None:
            continue
        (log,) = read_trtexec_logs(path)
        assert f"{log.compute.median_ms:.5g}" == f"{float(row['gpu_compute_median_ms']):.5g}", path
        assert log.throughput_qps == pytest.approx(float(row["throughput_qps"]), rel=1e-3)
        is_latency = not row["quality"].startswith("compute and throughput only")
        assert (log.latency_ms is not None) is is_latency, path
        assert not is_latency or log.latency_ms == float(row["latency_median_ms"])
        assert row["power_mode"].startswith(power_mode(log)), path
        assert log.tensorrt == row["tensorrt"]
        checked += 1
    assert checked == 20


def test_a_warning_on_fp16_takes_no_int8_from_an_engine(tmp_path):
    text = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100700] [b23] # trtexec --onnx=a.onnx --fp16 --int8
[07/20/2025-17:58:20] [I] Precision: FP32+FP16+INT8
[07/20/2025-17:58:21] [W] [TRT] Detected layernorm nodes in FP16.
[07/20/2025-17:58:21] [I] [TRT] Total Activation Memory: 1000
&&&& PASSED TensorRT.trtexec [TensorRT v100700] [b23] # trtexec --onnx=a.onnx --fp16 --int8
"""
    (log,) = read_trtexec_logs(logs.write(tmp_path / "int8.log", text))
    assert log.precision == "fp16+int8"
