"""Whole files of real boards that others published, where they are on this machine."""

import csv
from dataclasses import replace

from published import published

from fine_edge.jetson.printed import read_board_file
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats import is_whole, parse_line
from fine_edge.jetson.verdict import judge

# Lines, lines left out, seconds, median of the module's power in mW, highest GPU clock in MHz.
LOGS = {
    "gwonxhj/tegrastats_cuda_compute_20260513_151135.log": (4, 0, 3.0, 5172.0, None),
    "gwonxhj/tegrastats_idle.log": (14, 0, 14.0, 4287.0, None),
    "gwonxhj/tegrastats_load_smoke.log": (18, 1, 17.0, 15479.0, None),
    "gwonxhj/tegrastats_multi_workload_20260517_213947.log": (38, 0, 37.0, 5555.0, None),
    "gwonxhj/tegrastats_tensorrt_resnet18_20260513_125323.log": (56, 0, 55.0, 5492.5, None),
    "gwonxhj/tegrastats_yolo_yolov8n_20260516_010734.log": (8, 0, 7.0, 5192.0, None),
    "jfdg01/tegrastats_512.log": (16, 0, 15.0, 9195.5, None),
    "jfdg01/tegrastats_idle.log": (8, 0, 8.0, 5237.0, None),
    "jfdg01/tegrastats_t0a_20260618.log": (130, 0, 130.0, 11015.0, None),
    "hokwangchoi/tegrastats_trt_20260419_013102.raw": (400, 0, 44.0, 6249.0, 1019.0),
    "gwonxhj/jetson_env_raw.log": (4, 641, 3.0, 4287.0, None),
}
# Rail and power of the moment of each single line, in the order of the file.
LINES = [
    ("VDD_GPU_SOC", 2399.0),
    ("VDD_IN", 5251.0),
    ("VDD_IN", 16321.0),
    ("VDD_IN", 4654.0),
    ("VDD_IN", 4761.0),
    ("VDD_IN", 6626.0),
    ("VDD_GPU_SOC", 2412.0),
    ("VDD_GPU", 0.0),
    ("VDD_GPU_SOC", 5139.0),
    ("VDD_GPU", 4925.0),
]


def test_real_boards():
    folder = published("data", "jetson_public")
    for name, expected in LOGS.items():
        file = read_board_file(folder / name)
        log, clock = file.log, file.log.spreads.get("gpu_mhz")
        highest = clock.greatest if clock else None
        found = (log.lines, file.left_out, log.seconds(None), log.power_mw["VDD_IN"].median, highest)
        assert found == expected, name
        assert abs(log.energy_j(None)["VDD_IN"] / log.seconds(None) / log.power_mw["VDD_IN"].mean * 1e3 - 1) < 0.03
    texts = (folder / "lines" / "tegrastats_by_release.txt").read_text(encoding="utf-8").splitlines()
    lines = [text for text in texts if not text.startswith("#")]
    assert all(map(is_whole, lines))
    assert [next(iter(parse_line(text).power_mw.items())) for text in lines] == LINES
    for path in sorted((folder / "jfdg01").glob("jetson-power_*.txt")):
        (state,) = read_board_file(path).printed.finish()
        found = state.snapshot
        assert (found.mode, found.mode_id, found.gpu_max_mhz, found.mode_gpu_mhz) == ("15W", 0, 624.75, 624.75)
        assert (found.is_locked, state.emc_locked, state.contradictions) == (True, True, ())
    states = read_board_file(folder / "lines" / "nvpmodel_and_jetson_clocks_orin_nano.txt").printed.finish()
    found = [(state.snapshot.mode, state.snapshot.gpu_max_mhz, state.snapshot.is_locked) for state in states]
    assert found == [
        ("25W", 918.0, False),
        ("MAXN_SUPER", 1020.0, False),
        ("MAXN", 1300.5, False),
        ("MAXN", 1300.5, True),
    ]
    assert not any(state.contradictions for state in states)
    (state,) = read_board_file(folder / "gwonxhj" / "jetson_env_raw.log").printed.finish()
    assert (state.l4t, state.snapshot.mode, state.snapshot.mode_id) == ("36.4.7", "25W", 1)
    locked = Snapshot(0.0, gpu_mhz=1020.0, gpu_min_mhz=1020.0, gpu_max_mhz=1020.0, oc_events={"oc3": 0})
    with (folder / "lines" / "oc3_on_orin_nano_super.csv").open(encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            seconds, rate = float(row["window_s"]), float(row["oc3_events_per_s"])
            after = replace(locked, at_s=seconds, oc_events={"oc3": round(rate * seconds)})
            verdict = judge([locked, after], [])
            assert (verdict.stamp, len(verdict.notes)) == ("VALID", 1), row
