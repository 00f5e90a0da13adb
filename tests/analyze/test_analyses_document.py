"""The figures of docs/ANALYSES.md are those of the analyses whose results are kept."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "examples" / "blood_cells" / "analyses.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "docs" / "ANALYSES.md").read_text(encoding="utf-8")


def test_receptive_fields_are_those_of_the_kept_results():
    small, middle, large = (KEPT[f"erf {size}"] for size in ("256x320", "480x640 --at centre", "960x1280 --at centre"))
    aside, corner = KEPT["erf 480x640 --at 0.3,0.3"], KEPT["erf 480x640"]
    assert {found["images"] for found in (small, middle, large, aside, corner)} == {72}
    assert large["made_by"]["weights"]["sha256"][:12] in TEXT
    for one in zip(small["stages"], middle["stages"], large["stages"], strict=True):
        sizes = " | ".join(f"{'>= ' if stage['touches_border'] else ''}{stage['sigma_px']:.2f}" for stage in one)
        assert f"| {one[0]['stage']} | {one[0]['stride']} | {sizes} |" in TEXT
    for found in (middle, large):
        pairs = zip([*found["ratios"], found["mean_ratio"]], [*found["ratios_ci"], found["mean_ratio_ci"]], strict=True)
        assert all(f"{ratio:.2f} ({low:.2f} to {high:.2f}) |" in TEXT for ratio, (low, high) in pairs)
        assert not any(one["touches_border"] for one in (*found["stages"], *found["tokens"]))
    for one, *others in zip(*(found["tokens"] for found in (large, middle, aside, corner)), strict=True):
        own = " (FINE's own)" if one["own_r"] else ""
        row = f"| {one['fusion']}, k={one['k']} | {one['r']}{own} | {one['sigma_low_px']:.2f} | "
        row += f"{one['sigma_high_px']:.2f} | {one['ratio']:.2f} "
        row += "({:.2f} to {:.2f}) | ".format(*one["ratio_ci"])
        assert row + " | ".join(map(marked, others)) + " |" in TEXT


def marked(token):
    """The ratio as tables mark it."""
    mark = "~ " if token["low"]["touches_border"] else ">= " if token["high"]["touches_border"] else ""
    return f"{mark}{token['ratio']:.2f}"


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
