"""Which rows a second run may take over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_up_stages import passed, write_artifacts

from fine_edge.matrix.document import Cache
from fine_edge.matrix.row import STAGES, MatrixJob, MatrixRow

ORIGIN = {"source_sha256": "s", "libraries": {"onnx": "1"}, "machine": {"cpu": "c"}}


@pytest.fixture
def job(tmp_path):
    return MatrixJob("rtdetr_r18", 640, 640, tmp_path)


@pytest.fixture
def row(job):
    """One that passed, kept in the cache."""
    row = MatrixRow(job.model, job.input_hw, source_sha256="s")
    for stage in STAGES:
        row = passed(job, row, stage)
    Cache(job.folder, ORIGIN).keep(job, row)
    return row


def test_a_row_of_the_same_origin_options_and_artifacts_is_taken_over(job, row):
    assert Cache(job.folder, ORIGIN).find(job) == row
    assert Cache(job.folder, ORIGIN).find(replace(job, model="rtdetr_r50")) is None


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("key", ORIGIN)
def test_another_origin_is_not(job, key):
    assert Cache(job.folder, {**ORIGIN, key: "other"}).find(job) is None


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("change", [{"height": 320}, {"photographs": 3}])
def test_other_options_are_not(job, change):
    assert Cache(job.folder, ORIGIN).find(replace(job, **change)) is None


def test_a_row_made_by_code_that_was_changed_meanwhile_is_not(job, row):
    Cache(job.folder, ORIGIN).keep(job, replace(row, source_sha256="changed while it ran"))
    assert Cache(job.folder, ORIGIN).find(job) is None


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("file", ["rtdetr_r18.onnx", "rtdetr_r18.fp16.onnx", "rtdetr_r18.contract.json"])
def test_missing_or_changed_artifacts_are_not(job, file):
    (job.folder / file).write_text("other")
    assert Cache(job.folder, ORIGIN).find(job) is None
    (job.folder / file).unlink()
    assert Cache(job.folder, ORIGIN).find(job) is None


def test_artifacts_that_were_made_again_and_differ_are_not(job, row):
    write_artifacts(job)
    assert Cache(job.folder, ORIGIN).find(job) == row
    Cache(job.folder, ORIGIN).keep(job, replace(row, artifacts={"fp32": "0", "fp16": "1"}))
    assert Cache(job.folder, ORIGIN).find(job) is None


def test_a_failing_row_is_forgotten(job, row):
    Cache(job.folder, ORIGIN).keep(job, row.failing("rules", "broken"))
    assert Cache(job.folder, ORIGIN).find(job) is None


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 1, "rows": [1]}', "[" * 100_000])
def test_a_broken_cache_is_said_and_ignored(job, text, capsys):
    (job.folder / "matrix.cache").write_text(text)
    assert Cache(job.folder, ORIGIN).find(job) is None
    assert "all rows are run anew" in capsys.readouterr().err


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("entry", [{}, {"origin": ORIGIN, "options": {}, "row": 3}])
def test_a_broken_entry_is_no_row(job, entry):
    text = json.dumps({"format": 1, "rows": {job.model: entry}})
    (job.folder / "matrix.cache").write_text(text)
    assert Cache(job.folder, ORIGIN).find(job) is None


@pytest.mark.usefixtures("row")
def test_a_cache_of_another_format_is_ignored_quietly(job, capsys):
    (job.folder / "matrix.cache").write_text('{"format": 0}')
    assert Cache(job.folder, ORIGIN).find(job) is None
    assert not capsys.readouterr().err
