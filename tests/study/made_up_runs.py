"""A worker of a study whose runs are made up: ``made_up_runs.py FIGURES.json JOB``.

``FIGURES.json`` has AP by model and seed, per cent; a text there is the last line of a run that fails. A run without a
figure ends without a word; ``interrupt`` is Ctrl-C to the study. Each run leaves a line in ``calls`` beside that file.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

figures, job = Path(sys.argv[1]), json.loads(sys.argv[2])
recipe = job["made_from"]["recipe"]
with (figures.parent / "calls").open("a") as calls:
    calls.write(f"{recipe['model']} {recipe['seed']} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
ap = json.loads(figures.read_text())[recipe["model"]].get(str(recipe["seed"]))
if ap == "interrupt":  # Ctrl-C to the study, while this run goes on
    (figures.parent / "pid").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
if not isinstance(ap, (int, float)):
    sys.stderr.write(f"a line\nerror: {ap}\n" if ap else "")
    sys.exit(2)
found = {"ap": ap, "ap50": ap + 30, "ap75": ap, "ap_s": ap / 2, "ap_m": ap, "ap_l": None}
result = {
    "format": 1,
    "key": job["key"],
    "model": recipe["model"],
    "seed": recipe["seed"],
    "figures": found,
    "params": 4_560_000,
    "flops": 690_000_000,
    "convention": "made up",
    "seconds": 1.5,
    "losses": [{"epoch": epoch, "loss": 3 / epoch} for epoch in (1, 2)],
    "curve": [{"epoch": 2, "figures": found}],
    "latency": {"ms": 5, "low_ms": 4, "high_ms": 6, "board": "made up"} if job["estimates"] else None,
    "made_from": job["made_from"],
    "machine": {"cpu": "made up"},
}
Path(job["result"]).parent.mkdir(exist_ok=True, parents=True)
Path(job["result"]).write_text(json.dumps(result))
