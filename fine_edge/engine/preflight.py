"""Checks before a build: TensorRT, memory, disk, power mode and clocks. A build may otherwise fail after ten minutes.

The needs of the builder are *estimates*: nobody publishes them, and nothing here was measured on a Jetson. They are
high rather than low. ``--skip-preflight`` builds without these checks.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fine_edge import machine
from fine_edge.contract import TENSORRT
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform, release_of, require_tensorrt, runs_on_orin
from fine_edge.engine.source import Source
from fine_edge.errors import BackendError, OutputError
from fine_edge.files import output_errors
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.machine import MIB

# Estimates. TensorRT's libraries, its kernels and a CUDA context take memory before the first layer is timed, and on a
# Jetson they share the 8 GB with everything else.
BUILDER_MIB = 1200


# The parser and the builder hold weights in FP32 and FP16, and the plan holds them once more.
COPIES_OF_WEIGHTS = 6


SMALLEST_WORKSPACE_MIB = 128


# A larger workspace does not fuse more layers of an RT-DETR.
LARGEST_WORKSPACE_MIB = 2048


# The plan, its partial copy, a timing cache and the layers' description.
DISK_COPIES = 3


_ORIN_SM = 87


# The first Polygraphy that builds where layers have no precision of their own: all before read it of every layer.
_POLYGRAPHY_FOR_11 = (0, 50)


@dataclass(frozen=True)
class Preflight:
    """The result of the checks: the workspace to build with, the power mode, and warnings."""

    workspace_mib: int | None
    power_mode: str | None
    warnings: tuple[str, ...]


def check(
    source: Source, options: BuildOptions, platform: Platform, out: Path, board: Board | None = None
) -> Preflight:
    """Check TensorRT, memory, disk, power mode and clocks.

    Raises:
        BackendError: when TensorRT is missing or unsuitable, or memory is too small.
        OutputError: when disk space is too small.
    """
    _check_disk(source.size_bytes, out)
    if options.target != "tensorrt":
        return Preflight(options.workspace_mib, None, ())
    require_tensorrt(platform, source.model)
    board = board or Board()
    snapshot = board.snapshot()
    workspace_mib = _workspace(source, options, snapshot)
    version_warning = _check_tensorrt(source, options, platform)
    return Preflight(workspace_mib, snapshot.mode, (*version_warning, *_clock_warnings(board, snapshot)))


def _check_disk(size_bytes: int, out: Path) -> None:
    needed = DISK_COPIES * size_bytes
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
    if free < needed:
        raise OutputError(
            f"{free / MIB:.0f} MiB free; an engine and its temporary copy take about {needed / MIB:.0f} MiB (estimate)",
            where=out,
            hint="free some space or choose another folder with --out",
        )


def require_release(platform: Platform, options: BuildOptions) -> None:
    """Refuse a TensorRT that cannot do what is asked, before anything is exported or built.

    Raises:
        BackendError: for a TensorRT before 10; for ``fp16-weak`` on TensorRT 11, which is strongly typed only; for
            TensorRT 11 with a Polygraphy that reads what 11 dropped.
    """
    if options.target != "tensorrt" or platform.tensorrt is None:
        return
    version, release = platform.tensorrt, release_of(platform.tensorrt)
    if release < (10,):
        raise BackendError(f"TensorRT {version} is too old", hint=f"install TensorRT {TENSORRT}: docker/README.md")
    if release < (11,):
        return
    if options.precision == "fp16-weak":
        raise BackendError(
            f"TensorRT {version} is strongly typed only: it has no FP16 flag, which fp16-weak sets",
            hint="--precision fp16: the FP16 graph itself says what is FP16 (python -m fine_edge graph fp16 makes one)",
        )
    polygraphy = machine.version("polygraphy")
    if polygraphy is not None and release_of(polygraphy) < _POLYGRAPHY_FOR_11:
        raise BackendError(
            f"Polygraphy {polygraphy} reads ILayer.precision_is_set, which TensorRT {version} does not have",
            hint="pip install 'polygraphy>=0.50,<0.60'",
        )


def _check_tensorrt(source: Source, options: BuildOptions, platform: Platform) -> tuple[str, ...]:
    require_release(platform, options)
    version = str(platform.tensorrt)
    if platform.sm == _ORIN_SM and runs_on_orin(version, platform.cuda) is False:
        raise BackendError(
            f"TensorRT {version} for CUDA {platform.cuda} has no code for Orin (SM87)",
            hint="install 10.16.1 or newer, as JetPack 7.2 has it: docker/README.md",
        )
    checked_for = source.contract.tensorrt if source.contract else TENSORRT
    if release_of(version) < release_of(checked_for):
        return (
            f"TensorRT {version} is older than {checked_for}, which the graph was checked for: it may be refused or"
            " be slower (JetPack 6.1 and 6.2 ship 10.3; docker/README.md shows two ways to 10.7)",
        )
    return ()


def _workspace(source: Source, options: BuildOptions, snapshot: Snapshot) -> int | None:
    """Return the requested workspace, or half of the spare memory within bounds."""
    if snapshot.ram_available_mib is None:
        return options.workspace_mib
    weights_mib = COPIES_OF_WEIGHTS * source.size_bytes / MIB
    swap_mib = snapshot.swap_free_mib or 0.0
    # Memory that the GPU uses cannot be swapped out; memory of the process on the CPU can.
    spare_mib = snapshot.ram_available_mib + min(swap_mib, BUILDER_MIB / 2) - BUILDER_MIB - weights_mib
    wanted_mib = options.workspace_mib or SMALLEST_WORKSPACE_MIB
    if spare_mib < wanted_mib:
        smaller = "; a smaller --workspace-mib" if options.workspace_mib else ""
        raise BackendError(
            f"{snapshot.ram_available_mib:.0f} MiB of memory and {swap_mib:.0f} MiB of swap are free, the build needs"
            f" about {BUILDER_MIB + weights_mib + wanted_mib:.0f} MiB (estimate)",
            where=source.path.name,
            hint="close the desktop (sudo systemctl isolate multi-user.target), add swap (sudo fallocate -l 8G /swap;"
            f" sudo mkswap /swap; sudo swapon /swap){smaller}; or try anyway with --skip-preflight",
        )
    return options.workspace_mib or int(min(max(spare_mib / 2, SMALLEST_WORKSPACE_MIB), LARGEST_WORKSPACE_MIB))


def _clock_warnings(board: Board, snapshot: Snapshot) -> tuple[str, ...]:
    """Warn of changing clocks: the builder times kernels to pick them, and would pick others in each build."""
    if not board.is_jetson:
        return ()
    found = []
    if board.clocks_locked(snapshot) is False:
        found.append("clocks are not locked, so the builder times kernels at changing speeds: sudo jetson_clocks")
    if snapshot.contradiction:
        found.append(f"{snapshot.contradiction}: set the mode again (sudo nvpmodel -m {snapshot.mode_id}) and reboot")
    if snapshot.throttle:
        found.append(f"the board is throttled ({', '.join(snapshot.throttle)}): let it cool down first")
    return tuple(found)
