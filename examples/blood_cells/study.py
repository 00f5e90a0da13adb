"""What FINE changes in a small detector: both trained and scored alike on blood cells, several seeds each.

python examples/blood_cells/study.py path/to/bccd --out runs/blood_cells

The folder holds ``train.json``, ``test.json`` (COCO's format) and ``images/``. Goes on where it was interrupted. Writes
``study.json``, ``study.md`` and ``study.png`` into --out, and the checkpoints into folders there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure

from fine_edge import console
from fine_edge.files import write_text
from fine_edge.table import Column, Table

BASELINE, REFINED = "fcos_mobilenetv3", "fcos_mobilenetv3_fine"
# Half the pictures' size; an export's sides are multiples of 32, so there some rows below are empty.
TRAINED_AT, RUN_AT = "240x320", "256x320"
EPOCHS, BATCH = 10, 4
FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_s": "AP_s", "ap_m": "AP_m", "ap_l": "AP_l"}


def command(name: str, *arguments: object) -> str:
    """Standard output of one of fine_edge's commands; its own message is enough where it fails."""
    done = subprocess.run([sys.executable, "-m", "fine_edge", name, *map(str, arguments)], stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.decode()


def run(args: argparse.Namespace, model: str, seed: int) -> dict:
    """Train, then evaluate the last weights on pictures that nothing was chosen by."""
    folder = args.out / f"{model}-seed{seed}"
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    how = ("--input-size", TRAINED_AT, "--epochs", args.epochs, "--batch", BATCH, "--flips", "both", "--half")
    train, images = args.data / "train.json", args.data / "images"
    command(
        "train", model, "--data", train, "--images", images, *how, "--seed", seed, "--threads", threads, "--out", folder
    )
    weights = ("--weights", folder / f"{model}.safetensors", "--input-size", RUN_AT, "--artifacts", folder)
    test = ("--data", args.data / "test.json", "--images", images, "--out", folder / "evaluations", "--json")
    found = json.loads(command("evaluate", "--model", model, *weights, *test))
    console.remark(f"{model}, seed {seed}: AP {100 * found['ap']:.1f}")
    kept = {name: found[name] for name in (*FIGURES, "errors", "images", "data", "data_sha256", "artifact_sha256")}
    training = json.loads((folder / "training.json").read_text())
    return {"model": model, "seed": seed, **kept, "training": training}


def per_cent(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def table(runs: list[dict]) -> Table:
    """One row a detector, then FINE's difference, seed against the same seed."""
    by_model = {model: [run for run in runs if run["model"] == model] for model in (BASELINE, REFINED)}
    seeds, test = len(by_model[REFINED]), runs[0]
    view = Table(
        f"Blood cells: {test['data']}, {test['images']} pictures, {seeds} seeds",
        [Column("detector", numeric=False), *map(Column, FIGURES.values())],
        notes=["Mean and standard deviation over the seeds, in per cent; the last weights, chosen by nothing."],
    )
    for model, found in by_model.items():
        view.add(model, *(per_cent([run[name] for run in found]) for name in FIGURES))
    pairs = list(zip(*by_model.values(), strict=True))
    gains = {name: [100 * (fine[name] - base[name]) for base, fine in pairs] for name in FIGURES}
    view.add("difference, by seed", *(" ".join(f"{gain:+.1f}" for gain in values) for values in gains.values()))
    view.add("difference, mean", *(f"{mean(values):+.1f}" for values in gains.values()))
    return view


def draw(runs: list[dict], path: Path) -> None:
    """Every run a dot; a line joins the two of one seed."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(FIGURES):
        for seed in sorted({run["seed"] for run in runs}):
            base, fine = (
                100 * next(run[name] for run in runs if (run["model"], run["seed"]) == (model, seed))
                for model in (BASELINE, REFINED)
            )
            axes.plot([place - 0.12, place + 0.12], [base, fine], color="0.75", zorder=1)
            axes.scatter([place - 0.12], [base], color="#b5651d", label=BASELINE if (place, seed) == (0, 0) else None)
            axes.scatter([place + 0.12], [fine], color="#0b6e8f", label=REFINED if (place, seed) == (0, 0) else None)
    axes.set_xticks(range(len(FIGURES)), FIGURES.values())
    axes.set_ylabel("per cent")
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(f"Test pictures: {runs[0]['images']} of BCCD; a line joins two trainings of one seed", loc="left")
    figure.savefig(path, dpi=130)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at one time (default: a core each)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/blood_cells"))
    args = parser.parse_args(argv)

    wanted = [(model, seed) for seed in args.seeds for model in (BASELINE, REFINED)]
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda job: run(args, *job), wanted))
    write_text(args.out / "study.json", json.dumps(runs, indent=1) + "\n")
    view = table(runs)
    write_text(args.out / "study.md", view.to_markdown() + "\n")
    draw(runs, args.out / "study.png")
    view.print(console.out)


if __name__ == "__main__":
    main()
