"""The power mode of an Orin Nano 8 GB, as far as a log of trtexec tells it.

"Application Memory Clock Rate" on an Orin is not the memory's: it is the GPU's cap in the power mode that is set.
Measured on one board in three modes, 0.612, 0.918 and 1.02 GHz, and seen with the documented mode on two others;
without Super, where the module's own clock is 0.624 GHz, 0.624 in 15W. No other board or GPU has been seen to tell.
"""

from __future__ import annotations

from fine_edge.trtexec.log import TrtexecLog

_ORIN_SM = 87
_NANO_8GB_SMS = 8
_MOST_MIB = 8192
"""An Orin NX has as many multiprocessors; that of 16 GB has more memory, both have other clocks."""
_MODES = {(1.02, 0.612): "15W", (1.02, 0.918): "25W", (1.02, 1.02): "MAXN_SUPER", (0.624, 0.624): "15W"}
"""By the two clock rates of the log, GHz."""


def power_mode(log: TrtexecLog) -> str | None:
    """Return the mode's name; ``None`` for other devices, and for clocks that were not seen with a known mode."""
    is_nano = log.gpu is not None and "Orin" in log.gpu and log.sm == _ORIN_SM and log.sms == _NANO_8GB_SMS
    if not is_nano or log.memory_mib is None or log.memory_mib > _MOST_MIB:
        return None
    if log.compute_clock_ghz is None or log.memory_clock_ghz is None:
        return None
    return _MODES.get((log.compute_clock_ghz, log.memory_clock_ghz))


def power_mode_source(log: TrtexecLog) -> str | None:
    """Return how the mode is known; ``None`` where it is not."""
    if power_mode(log) is None:
        return None
    return f"the GPU's cap in the log, {log.memory_clock_ghz:g} GHz (printed as Application Memory Clock Rate)"
