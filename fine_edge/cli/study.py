"""``fine-edge study``: train and evaluate variants with several seeds, and compare them."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fine_edge import console, files
from fine_edge.cli.arguments import Parser, add_explain, add_json, add_table_files, deliver, deliver_files
from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.study.one_run import RunJob
from fine_edge.study.outcome import StudyOutcome, outcome, read_record, write_record
from fine_edge.study.plan import StudyPlan, read_plan
from fine_edge.study.pool import LOG, WORKER, StudyPool, visible_devices
from fine_edge.study.result import RunResult, StudyRun, finished, runs_of
from fine_edge.study.tables import paired_table, study_table, write_curves

RECORD, CURVES = "study.json", "study.png"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge study",
        description="Train and evaluate every variant of a study's file with every seed, and compare each with the base"
        " seed by seed. An interrupted study goes on from the last epoch; finished runs, known by the content of all"
        " that they were made from, are not made again. Exit code 1 when a run failed.",
        epilog="Several machines: give each a --shard and one shared --out. The file: examples/blood_cells/study.toml.",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.toml", help="variants, seeds, data and recipe")
    parser.add_argument("--show", type=Path, metavar="RECORD", help="print a study that was made, and run nothing")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the file's data lie (default: beside the file itself)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/study"), metavar="DIR", help="folder of results (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="runs at a time, dealt out to the GPUs (default: 1)"
    )
    parser.add_argument("--shard", metavar="I/N", help="run the I-th of N parts only, and show all that is there")
    parser.add_argument(
        "--no-run", action="store_true", help="show the runs that are finished, also of a study that is going on"
    )
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, f"of the curves (PNG; default: {CURVES} in --out)")
    return parser


@dataclass(frozen=True)
class _Shard:
    """The runs of one machine of several: each ``count``-th from number ``index`` on, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> _Shard:
        if text is None:
            return cls()
        index, slash, count = text.partition("/")
        # Five digits and more are no number of machines, and int would take thousands of digits.
        numbers = [int(part) for part in (index, count) if part.isascii() and part.isdigit() and len(part) < 5]
        if not slash or len(numbers) < 2 or not 1 <= numbers[0] <= numbers[1]:
            raise ConfigError(f"{text[:20]!r} is no part of a study", where="--shard", hint="such as 1/3, 2/3 and 3/3")
        return cls(*numbers)

    def of(self, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """Return this part of all runs."""
        # Runs come seed by seed; dealt out in turn, every variant soon has its first on several machines, too.
        return [run for number, run in enumerate(runs) if number % self.count == self.index - 1]


def _require_packages() -> None:
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")


def _job(plan: StudyPlan, run: StudyRun, out: Path) -> RunJob:
    return RunJob(
        key=run.key,
        made_from=run.made_from,
        train=plan.data.train,
        val=plan.data.val,
        images=plan.data.images,
        val_images=plan.data.val_images or plan.data.images,
        weights=plan.recipe.weights,
        folder=run.folder(out),
        result=run.result_file(out),
        ap_every=plan.recipe.ap_every,
        # The latency is the graph's: the same for every seed.
        estimates=run.seed == plan.seeds[0],
    )


def _told(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _run(
    given: argparse.Namespace, plan: StudyPlan, runs: Sequence[StudyRun], worker: tuple[str, ...]
) -> tuple[dict[str, RunResult], dict[str, str]]:
    """Run what is not there; return results, and reasons of failures, by the keys of runs."""
    out: Path = given.out.absolute()
    # Of all parts: other machines write into the same folder, and all that is there is shown.
    results = finished(runs, out)
    mine = _Shard.parse(given.shard).of(runs)
    left = {run.key: run for run in mine if run.key not in results}
    if len(left) < len(mine):
        console.remark(f"{len(mine) - len(left)} of {len(mine)} runs are there already: {out}")
    if not left:
        return results, {}
    # Only where something is trained: results can be shown without torch.
    _require_packages()
    # One run at a time takes the GPU that torch takes anyway.
    devices = visible_devices() if given.workers > 1 else ()
    pool, broken, start_s = StudyPool(given.workers, devices, worker), {}, time.monotonic()
    jobs = [_job(plan, run, out) for run in left.values()]
    with console.progress() as bar, contextlib.closing(pool.run(jobs)) as ended:
        task = bar.add_task("runs", total=len(jobs))
        for done, (job, reason) in enumerate(ended, 1):
            bar.advance(task)
            run = left[job.key]
            # By the mean so far; runs go on side by side, which the mean has in it.
            seconds_left = (time.monotonic() - start_s) / done * (len(jobs) - done)
            rest = f"; about {_told(seconds_left)} left" if done < len(jobs) else ""
            if reason:
                broken[job.key] = reason
                console.warn(f"[{done}/{len(jobs)}] {run.label}: {reason} (all of it: {job.folder / LOG}){rest}")
                continue
            # Read from its file, as a later command would: what cannot be read is not taken for a result.
            results |= finished([run], out)
            ap = results[job.key].figures["ap"] if job.key in results else None
            console.remark(f"[{done}/{len(jobs)}] {run.label}: AP {'-' if ap is None else f'{ap:.1f}'}{rest}")
    return results, broken


def _deliver(given: argparse.Namespace, found: StudyOutcome) -> int:
    table = study_table(found)
    also = [paired_table(found)] if len(found.variants) > 1 else []
    deliver(given, found.to_json(), [table, *also])
    deliver_files(given, table, lambda path: write_curves(found, path), also)
    # Nothing to compare is a failure as well.
    return 1 if found.broken or not any(one.results for one in found.variants) else 0


def main(argv: list[str], worker: tuple[str, ...] = WORKER) -> int:
    """Make a study, or print one; return 1 when a run failed."""
    given = _parser().parse_args(argv)
    if (given.file is None) == (given.show is None):
        raise ConfigError("give a FILE.toml, or --show RECORD", where="fine-edge study")
    if given.show:
        return _deliver(given, read_record(given.show))
    if not 1 <= given.workers <= 256:
        raise ConfigError(f"{given.workers} is no number of workers", where="--workers", hint="1 to 256")
    plan = read_plan(given.file, given.data)
    if given.no_run:  # nothing is written that a study that is going on writes
        runs = runs_of(plan)
        return _deliver(given, outcome(plan, runs, finished(runs, given.out), {}))
    # Only for its error: before folders are made and data are read.
    _Shard.parse(given.shard)
    given.picture = given.picture or given.out / CURVES
    files.refuse_unwritable([given.out / RECORD, given.picture])
    runs = runs_of(plan)
    results, broken = _run(given, plan, runs, worker)
    found = outcome(plan, runs, results, broken)
    if not results:
        reason = next(iter(broken.values()), "no run is there yet")
        console.warn(f"nothing to compare: {reason}")
    write_record(found, given.out / RECORD)
    console.remark(f"record: {given.out / RECORD}")
    return _deliver(given, found)
