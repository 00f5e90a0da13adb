"""The state of a board at one moment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, str) or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def _optional(kind: Callable[[Any], _T], value: Any) -> _T | None:
    return None if value is None else kind(value)


_NUMBERS = (
    "gpu_mhz",
    "gpu_max_mhz",
    "gpu_min_mhz",
    "emc_mhz",
    "gpu_load_percent",
    "ram_available_mib",
    "swap_free_mib",
    "mode_gpu_mhz",
)


@dataclass(frozen=True)
class Snapshot:
    """The readings of one moment. ``None`` and empty values mean that a figure cannot be read, never that it is zero.

    Attributes:
        at_s: ``time.monotonic()``.
        gpu_mhz: GPU clock.
        gpu_max_mhz: its upper limit, set by the power mode, ``jetson_clocks`` or thermal throttling.
        gpu_min_mhz: its lower limit; equal to the upper one after ``jetson_clocks``.
        emc_mhz: memory clock.
        gpu_load_percent: busy share of the GPU.
        temperatures_c: by sensor, such as ``gpu`` and ``tj`` (the hottest of all).
        power_mw: by rail, instantaneous; ``VDD_IN`` is the whole module.
        mode: name of the power mode, such as ``25W``.
        mode_id: its number.
        throttle: the causes of throttling at this moment, one sentence each.
        ram_available_mib: memory that programs can still allocate.
        swap_free_mib: unused swap.
        oc_events: over-current and under-voltage throttling events since boot, by counter.
        mode_gpu_mhz: GPU clock that the power mode allows.
        contradiction: how the clocks contradict the mode.
        unread: the reason why a figure is missing, by field.
    """

    at_s: float
    gpu_mhz: float | None = None
    gpu_max_mhz: float | None = None
    gpu_min_mhz: float | None = None
    emc_mhz: float | None = None
    gpu_load_percent: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, float] = field(default_factory=dict)
    mode: str | None = None
    mode_id: int | None = None
    throttle: tuple[str, ...] = ()
    ram_available_mib: float | None = None
    swap_free_mib: float | None = None
    oc_events: dict[str, int] = field(default_factory=dict)
    mode_gpu_mhz: float | None = None
    contradiction: str | None = None
    unread: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the object that records hold."""
        return {**vars(self), "throttle": list(self.throttle)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Snapshot:
        """Read what :meth:`to_json` returns; raise KeyError, TypeError, ValueError or AttributeError otherwise."""
        return cls(
            at_s=_number(data["at_s"]),
            temperatures_c={str(name): _number(value) for name, value in data["temperatures_c"].items()},
            power_mw={str(name): _number(value) for name, value in data["power_mw"].items()},
            mode=_optional(str, data["mode"]),
            mode_id=_optional(int, data["mode_id"]),
            throttle=tuple(str(text) for text in data["throttle"]),
            oc_events={str(name): int(value) for name, value in data["oc_events"].items()},
            contradiction=_optional(str, data["contradiction"]),
            unread={str(name): str(reason) for name, reason in data["unread"].items()},
            **{name: _optional(_number, data[name]) for name in _NUMBERS},
        )
