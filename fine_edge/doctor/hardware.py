"""Checks of the CUDA device, the board and its state, memory and disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fine_edge.doctor.software import Check
from fine_edge.errors import FineEdgeError
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.machine import GIB

# Estimates. A build of RT-DETR R50 takes the builder itself and several copies of 170 MiB of weights.
BUILD_MIB = 2400
# PyTorch on a host, or engines, timing caches and records on a board.
FREE_DISK_GIB = 2.0


def hardware(board: Board, state: Snapshot, folder: Path) -> Iterator[Check]:
    """Yield one check for each part of the hardware.

    Args:
        board: the board.
        state: its state now.
        folder: the folder that engines and records are written to.
    """
    yield _gpu(board)
    yield _board(board)
    if board.is_jetson:
        yield _mode(board, state)
        yield _clocks(board, state)
        yield _throttling(state)
    yield _temperature(state)
    yield _memory(board)
    yield _disk(folder)


def _gpu(board: Board) -> Check:
    from fine_edge.engine.cuda import gpu_info

    try:
        gpu = gpu_info()
    except FineEdgeError as error:
        needed = board.is_jetson
        hint = error.hint if needed else "nothing to do: export, parity and engine inspect need no GPU"
        return Check("CUDA device", "fail" if needed else "absent", error.what, hint)
    memory = f"{gpu.total_bytes / GIB:.1f} GiB"
    return Check("CUDA device", "ok", f"{gpu.name}, SM {gpu.sm}, driver for CUDA {gpu.driver}, {memory}")


def _board(board: Board) -> Check:
    if not board.is_jetson:
        return Check("board", "ok", "no Jetson: a host for export, parity and engine inspect")
    found = f"{board.model or 'model unknown'}, L4T {board.l4t or 'unknown'}"
    if board.l4t is None:
        hint = "in a container, mount /etc/nv_tegra_release from the host: docker/README.md"
        return Check("board", "warn", found, hint)
    return Check("board", "ok", found)  # whether the release will do, the line on JetPack says


def _mode(board: Board, state: Snapshot) -> Check:
    if state.mode is None:
        number = "" if state.mode_id is None else f" {state.mode_id}"
        hint = "sudo nvpmodel -q shows it; in a container, mount /var/lib/nvpmodel and /etc/nvpmodel.conf from the host"
        return Check("power mode", "warn", f"unknown{number}", hint)
    limit = f", GPU up to {state.mode_gpu_mhz:.0f} MHz" if state.mode_gpu_mhz else ""
    found = f"{state.mode} (mode {state.mode_id}){limit}; modes from {board.modes.source}"
    if state.contradiction:
        return Check("power mode", "warn", f"{found}; but {state.contradiction}", "set the mode again and reboot")
    return Check("power mode", "ok", found)


def _clocks(board: Board, state: Snapshot) -> Check:
    locked = board.clocks_locked(state)
    if locked is None:
        return Check("clocks", "warn", "not readable", state.unread.get("gpu_mhz", ""))
    emc = _memory_clock(state)
    gpu = f"GPU {state.gpu_min_mhz:.0f} to {state.gpu_max_mhz:.0f} MHz"
    if locked:
        return Check("clocks", "ok", f"locked: GPU {state.gpu_max_mhz:.0f} MHz, {emc}")
    return Check("clocks", "warn", f"not locked: {gpu}, {emc}", "before building or measuring: sudo jetson_clocks")


def _memory_clock(state: Snapshot) -> str:
    """Return the memory clock, or its cap, which needs no root."""
    if state.emc_mhz:
        return f"memory {state.emc_mhz:.0f} MHz"
    cap = f"up to {state.emc_max_mhz:.0f} MHz, now " if state.emc_max_mhz else "clock "
    return f"memory {cap}unknown ({state.unread.get('emc_mhz', 'it reads 0')})"


def _throttling(state: Snapshot) -> Check:
    counted = ", ".join(f"{name} {count}" for name, count in state.oc_events.items() if count)
    since = f"; over-current events since boot: {counted}" if counted else ""
    if not state.throttle:
        return Check("throttling", "ok", f"none now{since}")
    hint = "let it cool down, use a fan and the power supply of the kit, or set a lower power mode"
    return Check("throttling", "warn", "; ".join(state.throttle) + since, hint)


def _temperature(state: Snapshot) -> Check:
    if not state.temperatures_c:
        return Check("temperature", "absent", "no sensor can be read")
    name, celsius = max(state.temperatures_c.items(), key=lambda item: item[1])
    return Check("temperature", "ok", f"{celsius:.1f} C at the hottest sensor ({name})")


def _memory(board: Board) -> Check:
    memory = board.memory
    if memory.ram_available_mib is None:
        return Check("memory", "warn", "/proc/meminfo does not list it")
    swap_mib = memory.swap_free_mib or 0.0
    found = f"{memory.ram_available_mib:.0f} of {memory.ram_total_mib or 0:.0f} MiB available, {swap_mib:.0f} MiB swap"
    if memory.ram_available_mib >= BUILD_MIB:
        return Check("memory", "ok", f"{found}: enough for a build (about {BUILD_MIB} MiB, estimate)")
    hint = "close the desktop: sudo systemctl isolate multi-user.target"
    if swap_mib < BUILD_MIB:
        hint += "; add swap: sudo fallocate -l 8G /swap; sudo chmod 600 /swap; sudo mkswap /swap; sudo swapon /swap"
    return Check("memory", "warn", f"{found}: little for a build (about {BUILD_MIB} MiB, estimate)", hint)


def _disk(folder: Path) -> Check:
    try:
        free_gib = shutil.disk_usage(folder).free / GIB
    except OSError as error:
        return Check("disk", "fail", f"{folder} cannot be read ({error.strerror})", "work in a folder that exists")
    found = f"{free_gib:.1f} GiB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{found}, but it cannot be written", "work in a folder of your own")
    if free_gib < FREE_DISK_GIB:
        return Check("disk", "warn", found, "free some space, or write elsewhere with --out")
    return Check("disk", "ok", found)
