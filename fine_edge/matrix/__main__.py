"""``python -m fine_edge.matrix``: every model of the zoo through export, rules, parity and NVIDIA's compiler."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from rich.progress import Progress, TaskID

from fine_edge import atomic, command, console
from fine_edge.errors import ConfigError
from fine_edge.export.request import ExportRequest, parse_size
from fine_edge.images import sample_photographs
from fine_edge.matrix.cache import Cache
from fine_edge.matrix.document import Matrix
from fine_edge.matrix.job import Job
from fine_edge.matrix.origin import origin
from fine_edge.matrix.pool import WORKER, Pool
from fine_edge.matrix.row import Row
from fine_edge.zoo.catalog import CATALOG, find

TIMEOUT_S = 3600.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.matrix",
        description="Export every model of the zoo, run the graph rules on it, compare it with PyTorch in FP32 and"
        " FP16, and compile it with TensorRT-RTX. Exit code 1 when a cell fails.",
        epilog="A run that was interrupted goes on where it stopped; what failed is tried again.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these (default: the whole catalogue)")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="multiple of 32 (default: each detector's own)")
    parser.add_argument("--photographs", type=int, default=2, metavar="N", help="compared, besides noise (default: 2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="models at a time (default: 1)")
    parser.add_argument(
        "--timeout-s", type=float, default=TIMEOUT_S, metavar="S", help=f"for one model (default: {TIMEOUT_S:g})"
    )
    parser.add_argument("--fresh", action="store_true", help="run again what passed already")
    parser.add_argument("--out", type=Path, default=Path("engines"), metavar="DIR", help="artifacts (default: engines)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the matrix, every model of the catalogue a row, after each row anew"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table for documents, at the end")
    return parser


def _jobs(args: argparse.Namespace) -> dict[str, Job]:
    """Jobs of the models asked for, all checked before the first one is run."""
    if args.jobs < 1:
        raise ConfigError(f"{args.jobs} jobs are none", where="--jobs", mend="use 1 or more")
    if args.timeout_s <= 0:
        raise ConfigError(f"{args.timeout_s:g} s are none", where="--timeout-s", mend="leave it out")
    most = len(sample_photographs())
    if not 1 <= args.photographs <= most:
        raise ConfigError(f"{args.photographs} photographs", where="--photographs", mend=f"use 1 to {most}")
    height, width = parse_size(args.input_size)
    threads = None if args.jobs == 1 else max(1, (os.cpu_count() or 1) // args.jobs)
    requests = [ExportRequest(name, height=height, width=width) for name in args.models or CATALOG]
    return {r.model: Job(r.model, *r.input_hw, args.out.absolute(), args.photographs, threads) for r in requests}


def _start(args: argparse.Namespace, jobs: dict[str, Job]) -> tuple[Cache, Matrix]:
    """The matrix with all rows that need not be run again; the others, asked for or not, say that they were not."""
    made = origin()
    cache = Cache(args.out, made)
    rows = {}
    for name in dict.fromkeys((*CATALOG, *jobs)):
        job = jobs.get(name) or Job(name, *find(name).detector.input_hw, args.out.absolute(), args.photographs)
        again = args.fresh and name in jobs
        rows[name] = (None if again else cache.find(job)) or Row(name, job.input_hw)
    return cache, Matrix(rows, made, args.photographs)


def _run(args: argparse.Namespace, jobs: dict[str, Job], worker: tuple[str, ...]) -> Matrix:
    cache, matrix = _start(args, jobs)
    left = [job for job in jobs.values() if not matrix.rows[job.model].complete]
    if len(left) < len(jobs):
        console.remark(f"{len(jobs) - len(left)} of {len(jobs)} models passed already; --fresh runs them again")
    pool = Pool(args.jobs, args.timeout_s, worker)
    done = 0
    with console.progress() as bar, contextlib.closing(pool.run(left)) as events:
        total = bar.add_task("models", total=len(left))
        tasks: dict[str, TaskID] = {}
        for event in events:
            model = event.row.model
            _show(bar, tasks, model, event.stage)
            if event.stage is None:
                done += 1
                bar.advance(total)
                matrix.rows[model] = event.row
                _report(event.row, f"{done}/{len(left)}")
                cache.keep(jobs[model], event.row)
                if args.json:
                    matrix.write(args.json)
    return matrix


def _show(bar: Progress, tasks: dict[str, TaskID], model: str, stage: str | None) -> None:
    """One line a model that runs, with its stage."""
    if stage is None:
        if model in tasks:
            bar.remove_task(tasks.pop(model))
    elif model not in tasks:
        tasks[model] = bar.add_task(f"{model}: {stage}", total=None)
    else:
        bar.update(tasks[model], description=f"{model}: {stage}")


def _report(row: Row, count: str) -> None:
    text = f"[{count}] {row.model}: {row.note if row.failed else 'ok'} ({sum(row.seconds.values()):.0f} s)"
    (console.warn if row.failed else console.remark)(text)


def main(argv: list[str], worker: tuple[str, ...] = WORKER) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    jobs = _jobs(args)
    atomic.refuse_unwritable([args.json, args.markdown, args.out / "matrix.cache"])
    matrix = _run(args, jobs, worker)
    if args.json:
        matrix.write(args.json)
    table = matrix.table(list(jobs))
    table.print(console.out)
    if args.markdown:
        atomic.write_text(args.markdown, table.to_markdown())
    rows = [matrix.rows[name] for name in jobs]
    if any(row.lacks_compiler for row in rows):
        console.warn("nothing was compiled: TensorRT-RTX is not installed -> pip install 'fine-edge[rtx]'")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    command.run(main)
