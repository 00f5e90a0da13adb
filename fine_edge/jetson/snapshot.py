"""The state of a board at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from fine_edge.fields import ADDED, Finite


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
        emc_max_mhz: upper limit of the memory clock, set by the power mode.
    """

    at_s: Finite
    gpu_mhz: Finite | None = None
    gpu_max_mhz: Finite | None = None
    gpu_min_mhz: Finite | None = None
    emc_mhz: Finite | None = None
    gpu_load_percent: Finite | None = None
    temperatures_c: dict[str, Finite] = field(default_factory=dict)
    power_mw: dict[str, Finite] = field(default_factory=dict)
    mode: str | None = None
    mode_id: int | None = None
    throttle: tuple[str, ...] = ()
    ram_available_mib: Finite | None = None
    swap_free_mib: Finite | None = None
    oc_events: dict[str, int] = field(default_factory=dict)
    mode_gpu_mhz: Finite | None = None
    contradiction: str | None = None
    unread: dict[str, str] = field(default_factory=dict)
    emc_max_mhz: Finite | None = field(default=None, metadata=ADDED)

    @property
    def is_locked(self) -> bool | None:
        """Whether lowest and highest GPU clock are equal, as after ``jetson_clocks``; ``None`` where one is unknown."""
        if self.gpu_min_mhz is None or self.gpu_max_mhz is None:
            return None
        return self.gpu_min_mhz == self.gpu_max_mhz
