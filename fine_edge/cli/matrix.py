"""``fine-edge matrix``: take every model of the zoo through export, rules, parity and NVIDIA's compiler."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from pathlib import Path

from rich.progress import Progress, TaskID

from fine_edge import console, files
from fine_edge.cli.arguments import STDOUT, Parser, add_artifacts, add_explain, add_json, deliver
from fine_edge.errors import ConfigError
from fine_edge.export.request import ExportRequest, parse_size
from fine_edge.images import sample_photographs
from fine_edge.matrix.document import Cache, Matrix, origin
from fine_edge.matrix.pool import WORKER, Pool
from fine_edge.matrix.row import MatrixJob, MatrixRow
from fine_edge.zoo.catalog import CATALOG, find

# For one model, from export to compilation. One that hangs must not hold up a run of the whole catalogue.
TIMEOUT_S = 3600.0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge matrix",
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
    add_artifacts(parser, or_out=True)
    add_json(parser)
    add_explain(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table for documents, at the end")
    return parser


def _jobs(args: argparse.Namespace) -> dict[str, MatrixJob]:
    """Return the jobs of the models asked for, all checked before the first one is run."""
    if args.jobs < 1:
        raise ConfigError(f"{args.jobs} jobs are none", where="--jobs", hint="use 1 or more")
    if not 0 < args.timeout_s < math.inf:
        raise ConfigError(f"{args.timeout_s:g} s are none", where="--timeout-s", hint="leave it out")
    most = len(sample_photographs())
    if not 1 <= args.photographs <= most:
        raise ConfigError(f"{args.photographs} photographs", where="--photographs", hint=f"use 1 to {most}")
    height, width = parse_size(args.input_size)
    # ONNX Runtime takes all cores for each session: several at a time would take turns on them.
    threads = None if args.jobs == 1 else max(1, (os.cpu_count() or 1) // args.jobs)
    # Each request checks its model and size, so that a wrong name is told before hours of work.
    requests = [ExportRequest(name, height=height, width=width) for name in args.models or CATALOG]
    return {
        r.model: MatrixJob(r.model, *r.input_hw, args.artifacts.absolute(), args.photographs, threads) for r in requests
    }


def _start(args: argparse.Namespace, jobs: dict[str, MatrixJob]) -> tuple[Cache, Matrix]:
    """Return the matrix with the rows that need not be run again; the others are marked as not run."""
    made = origin()
    cache = Cache(args.artifacts, made)
    rows = {}
    # Every model has a row from the start: what was not run says so, in place of being absent.
    for name in dict.fromkeys((*CATALOG, *jobs)):
        job = jobs.get(name) or MatrixJob(
            name, *find(name).detector.input_hw, args.artifacts.absolute(), args.photographs
        )
        # --fresh is for the models that are named; rows of others stay what they were.
        again = args.fresh and name in jobs
        rows[name] = (None if again else cache.find(job)) or MatrixRow(name, job.input_hw)
    return cache, Matrix(rows, made, args.photographs)


def _run(args: argparse.Namespace, jobs: dict[str, MatrixJob], worker: tuple[str, ...]) -> Matrix:
    cache, matrix = _start(args, jobs)
    left = [job for job in jobs.values() if not matrix.rows[job.model].complete]
    if len(left) < len(jobs):
        console.remark(f"{len(jobs) - len(left)} of {len(jobs)} models passed already; --fresh runs them again")
    pool = Pool(args.jobs, args.timeout_s, worker)
    done = 0
    # Closing ends the processes, also behind Ctrl-C.
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
                # Kept and written after each model, so that a run that is cut off goes on behind it.
                cache.keep(jobs[model], event.row)
                if args.json and args.json != STDOUT:
                    matrix.write(args.json)
    return matrix


def _show(bar: Progress, tasks: dict[str, TaskID], model: str, stage: str | None) -> None:
    """Show one progress line for each running model, with its stage."""
    if stage is None:
        if model in tasks:
            bar.remove_task(tasks.pop(model))
    elif model not in tasks:
        tasks[model] = bar.add_task(f"{model}: {stage}", total=None)
    else:
        bar.update(tasks[model], description=f"{model}: {stage}")


def _report(row: MatrixRow, count: str) -> None:
    text = f"[{count}] {row.model}: {row.note if row.failed else 'ok'} ({sum(row.seconds.values()):.0f} s)"
    (console.warn if row.failed else console.remark)(text)


def main(argv: list[str], worker: tuple[str, ...] = WORKER) -> int:
    """Run the models and print the matrix; return 1 when a cell fails."""
    args = _parser().parse_args(argv)
    jobs = _jobs(args)
    # Where the cache lies; the name is only for the try.
    files.refuse_unwritable([args.artifacts / "matrix.cache"])
    matrix = _run(args, jobs, worker)
    table = matrix.table(list(jobs))
    deliver(args, matrix.to_json(), [table])
    if args.markdown:
        files.write_text(args.markdown, table.to_markdown())
    rows = [matrix.rows[name] for name in jobs]
    if any(row.lacks_compiler for row in rows):
        console.warn("nothing was compiled: TensorRT-RTX is not installed -> pip install 'fine-edge[rtx]'")
    return 1 if any(row.failed for row in rows) else 0
