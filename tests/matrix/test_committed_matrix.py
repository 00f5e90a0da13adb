"""The matrix that the repository shows: every model of the zoo has a row, and every cell a figure."""

import json
import re
from pathlib import Path

from fine_edge.matrix.row import MatrixRow
from fine_edge.zoo.catalog import CATALOG

BENCH = Path(__file__).parents[2] / "bench"


def test_no_model_is_missing_and_none_fails():
    data = json.loads((BENCH / "matrix.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in data["rows"]] == list(CATALOG)
    assert data["complete"] is True
    rows = [MatrixRow.from_json(row) for row in data["rows"]]
    assert [row.model for row in rows if row.failed or not row.complete] == []
    if len({row.source_sha256 for row in rows}) > 1:
        assert "its rows are not of one source" in (BENCH / "MATRIX.md").read_text(encoding="utf-8")
    for row in data["rows"]:
        assert row["rtx_kernels"] > 50
        assert row["activation_mib"] > 10
        assert row["export"] == "ok"
        assert all(row[key].startswith("ok") for key in ("rules", "parity_fp32", "parity_fp16"))


def test_readmes_table_of_kernels_is_of_the_matrix():
    """Its FP16 columns; those of FP32 and of weights are of ``make engine``."""
    rows = {row["model"]: row for row in json.loads((BENCH / "matrix.json").read_text(encoding="utf-8"))["rows"]}
    shown = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\d+) \| ([\d.]+) \| ",
        (BENCH.parent / "docs" / "FIGURES.md").read_text("utf-8"),
        re.M,
    )
    assert len(shown) == 8
    for model, kernels, fused, activation_mib in shown:
        row = rows[model]
        assert (int(kernels), int(fused)) == (row["rtx_kernels"], row["fused_attention"])
        assert float(activation_mib) == row["activation_mib"]


def test_the_document_says_the_same():
    text = (BENCH / "MATRIX.md").read_text(encoding="utf-8")
    for row in json.loads((BENCH / "matrix.json").read_text(encoding="utf-8"))["rows"]:
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['model']} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert [row[key] for key in ("parity_fp32", "parity_fp16")] == cells[4:6]
        assert [str(row[key]) for key in ("rtx_kernels", "fused_attention", "activation_mib")] == cells[6:9]
