import json
from dataclasses import replace
from pathlib import Path

import pytest
import trtexec_logs as logs

from fine_edge.bench.record import read_record, write_record
from fine_edge.cli.report import main
from fine_edge.errors import ArtifactError, ConfigError, RecordError
from fine_edge.report.markdown import to_markdown

BENCH = Path(__file__).parents[2] / "bench"


def test_the_committed_results_are_what_the_records_give(committed):
    records = [(path, read_record(path)) for path in committed]
    assert len(records) >= 2
    assert to_markdown(records, BENCH) == (BENCH / "RESULTS.md").read_text(encoding="utf-8")


def test_estimates_come_last_under_a_heading_of_their_own(device_record, cpu_record, tmp_path):
    records = [(tmp_path / "e.json", replace(device_record, estimate=True)), (tmp_path / "m.json", cpu_record)]
    measured, _, estimates = to_markdown(records, tmp_path).partition("## ESTIMATES: computed, not measured")
    assert "[`m.json`](m.json)" in measured
    assert "ESTIMATE" not in measured
    assert "[`e.json`](e.json)" in estimates


def test_html_and_markdown_of_a_record_made_elsewhere(device_record, tmp_path, capsys):
    write_record(device_record, tmp_path / "r" / "device.json")
    outputs = ["--html", str(tmp_path / "page.html"), "--markdown", str(tmp_path / "R.md")]
    assert main([str(tmp_path / "r" / "device.json"), *outputs]) == 0
    assert capsys.readouterr().out.split() == [outputs[1], outputs[3]]
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "[`device.json`](r/device.json)" in (tmp_path / "R.md").read_text(encoding="utf-8")


def test_nothing_is_written_when_one_file_is_broken(committed, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RecordError):
        main([str(committed[0]), str(tmp_path / "bad.json"), "--html", str(tmp_path / "page.html")])
    (tmp_path / "layers.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(ArtifactError):
        main([str(committed[0]), "--layers", str(tmp_path / "layers.json"), "--html", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_without_an_output_there_is_nothing_to_do(committed):
    with pytest.raises(ConfigError, match="--html"):
        main([str(committed[0])])


def test_logs_of_others_stand_under_a_heading_of_their_own(committed, tmp_path):
    paths = [logs.write(tmp_path / f"{name}.log", text) for name, text in (("a", logs.WAITING), ("b", logs.BUILDER))]
    outputs = ["--html", str(tmp_path / "page.html"), "--markdown", str(tmp_path / "R.md")]
    assert main([*map(str, paths), str(committed[0]), *outputs]) == 0
    measured, _, imported = (tmp_path / "R.md").read_text(encoding="utf-8").partition("## IMPORTED: measured by others")
    assert "a.log" not in measured
    assert "[`a.log`](a.log)" in imported
    assert "holds the wait for the query before" in imported
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<span class="mark note">IMPORTED</span>') == 2
    assert page.index("<h2>a.log (trtexec") > page.index("nothing trimmed")
    assert "compute 30.73 ms, no latency" in page
