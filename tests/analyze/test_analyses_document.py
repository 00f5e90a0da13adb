"""The figures of docs/ANALYSES.md are those of the analyses whose results are kept."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "examples" / "blood_cells" / "analyses.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "docs" / "ANALYSES.md").read_text(encoding="utf-8")


def test_receptive_fields_are_those_of_the_kept_results():
    small, large = KEPT["erf 256x320"], KEPT["erf 512x640 --at centre"]
    assert small["images"] == large["images"] == 72
    for near, far in zip(small["stages"], large["stages"], strict=True):
        bound = ">= " if near["touches_border"] else ""
        assert f"| {near['stage']} | {near['stride']} | {bound}{near['sigma_px']:.2f} | " in TEXT
        assert f" | {far['sigma_px']:.2f} | " in TEXT
        assert not far["touches_border"]
    for one in (*small["ratios"], *large["ratios"], small["mean_ratio"], large["mean_ratio"]):
        assert f"{one:.2f} |" in TEXT
    for near, far in zip(small["tokens"], large["tokens"], strict=True):
        own = " (FINE's own)" if far["own_r"] else ""
        row = f"| {far['fusion']}, k={far['k']} | {far['r']}{own} | {far['sigma_low_px']:.2f} | "
        row += f"{far['sigma_high_px']:.2f} | {far['ratio']:.2f} | ~ {near['ratio']:.2f} |"
        assert row in TEXT
        assert near["touches_border"]
        assert not far["touches_border"]


def test_heatmaps_are_those_of_the_kept_results():
    small, large = KEPT["heatmap 256x320"], KEPT["heatmap 512x640"]

    def cell(row):
        return f"{row['ratio']:.3f} ({row['ci'][0]:.3f} to {row['ci'][1]:.3f})"

    for fusion in ("l=3", "l=2"):
        cells = " | ".join(cell(row) for row in small["fusions"] if row["fusion"] == fusion)
        assert f"| {fusion} | {cells} |" in TEXT
    objects = {"all": small["fusions"][0]["objects"]}
    objects |= {size: row["objects"] for size, row in small["fusions"][0]["by_size"].items()}
    for size, number in objects.items():
        gains = [cell(row) for found in (small, large) for row in found["gains"] if row["size"] == size]
        assert f"| {size} ({number}) | {' | '.join(gains)} |" in TEXT
