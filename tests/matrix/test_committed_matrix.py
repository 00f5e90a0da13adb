"""The matrix that the repository shows: every model of the zoo has a row, and every cell a figure."""

import json
from pathlib import Path

from fine_edge.matrix.row import Row
from fine_edge.zoo.catalog import CATALOG

BENCH = Path(__file__).parents[2] / "bench"


def test_no_model_is_missing_and_none_fails():
    data = json.loads((BENCH / "matrix.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in data["rows"]] == list(CATALOG)
    assert data["complete"] is True
    rows = [Row.from_json(row) for row in data["rows"]]
    assert [row.model for row in rows if row.failed or not row.complete] == []
    assert len({row.source_sha256 for row in rows}) == 1
    for row in data["rows"]:
        assert row["rtx_kernels"] > 50
        assert row["activation_mib"] > 10
        assert row["export"] == "ok"
        assert all(row[key].startswith("ok") for key in ("rules", "parity_fp32", "parity_fp16"))


def test_the_document_says_the_same():
    text = (BENCH / "MATRIX.md").read_text(encoding="utf-8")
    for row in json.loads((BENCH / "matrix.json").read_text(encoding="utf-8"))["rows"]:
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['model']} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert [row[key] for key in ("parity_fp32", "parity_fp16")] == cells[4:6]
        assert [str(row[key]) for key in ("rtx_kernels", "fused_attention", "activation_mib")] == cells[6:9]
