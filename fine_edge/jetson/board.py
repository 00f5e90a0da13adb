"""Reading of a board's state without root: clocks, load, temperatures, power and throttling.

Paths: GPU clocks in ``/sys/class/devfreq/17000000.gpu`` (L4T 36) or ``17000000.ga10b`` (L4T 35), GPU load in per mille
in the device's ``load``, the memory clock in debugfs, which only root may read on L4T 36, its cap in
``/sys/kernel/nvpmodel_clk_cap``. Sources: the Jetson Linux Developer Guide r36; rbonghi/jetson_stats
``jtop/core/gpu.py`` and ``memory.py`` (issues 323 and 360) for the paths.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fine_edge.jetson import power_modes, sysfs
from fine_edge.jetson.power_modes import ModeTable
from fine_edge.jetson.snapshot import Snapshot

# Temperatures and power, and the throttling that they cause.
#
# On Orin a cooling device is a fan, a clock that is throttled (``devfreq-17000000.gpu``, ``cpufreq-cpu0``), a message
# that this happens (``gpu-throttle-alert``), or a message that the case is hot (``hot-surface-alert``, from 70 C,
# without throttling). A zone's ``cdev0`` names a cooling device and ``cdev0_trip_point`` the trip point it belongs to.
# Only trip points of throttling devices count. Hardware throttling by current is counted per boot in ``oc1_event_cnt``
# (under-voltage), ``oc2`` (average) and ``oc3`` (instantaneous over-current) of the ``soctherm_oc`` monitor.
#
# Sources: the kernel's ``Documentation/driver-api/thermal/sysfs-api.rst``; thermal management in the Jetson Linux
# Developer Guide r36 (software throttling of CPU and GPU at 99 C); NVIDIA's ``tegra23x-oc-event`` driver.

# These are active on an idle board too, and throttle no clock.
_HARMLESS = ("fan", "hot-surface")
# A sensor of a block that is powered off reads -256.
_COLDEST_C = -50.0


def _zones(root: Path) -> list[tuple[str, float, Path]]:
    found = []
    for zone in sysfs.entries(root / "sys/class/thermal", "thermal_zone*"):
        name, millidegrees = sysfs.read_text(zone / "type"), sysfs.read_int(zone / "temp")
        if name and millidegrees is not None and millidegrees / 1000 > _COLDEST_C:
            found.append((name.removesuffix("-thermal").removesuffix("_thermal"), millidegrees / 1000, zone))
    return found


def read_temperatures_c(root: Path) -> dict[str, float]:
    """Return the temperatures by sensor; ``-thermal`` is removed from the names."""
    return {name: celsius for name, celsius, _ in _zones(root)}


def _throttling_kind(device: Path) -> str | None:
    """Return the type of a cooling device that throttles; ``None`` for a fan or a message."""
    kind = sysfs.read_text(device / "type")
    return None if kind is None or any(word in kind for word in _HARMLESS) else kind


def read_cooling(root: Path) -> list[str]:
    """Return a sentence for each cooling device that throttles now."""
    found = []
    for device in sysfs.entries(root / "sys/class/thermal", "cooling_device*"):
        kind, state = _throttling_kind(device), sysfs.read_int(device / "cur_state")
        if kind and state is not None and state > 0:
            found.append(f"cooling device {kind} is active")
    return found


def read_trips(root: Path) -> list[str]:
    """Return a sentence for each zone that has reached the trip point of one of its throttling devices."""
    found = []
    for name, celsius, zone in _zones(root):
        trips_c = [trip for device in sysfs.entries(zone, "cdev*") if (trip := _trip_c(zone, device)) is not None]
        if trips_c and celsius >= min(trips_c):
            found.append(f"{name} has reached its throttling point of {min(trips_c):.1f} C")
    return found


def _trip_c(zone: Path, device: Path) -> float | None:
    if not device.name.removeprefix("cdev").isdecimal() or not _throttling_kind(device):
        return None
    index = sysfs.read_int(zone / f"{device.name}_trip_point")
    millidegrees = None if index is None else sysfs.read_int(zone / f"trip_point_{index}_temp")
    return None if millidegrees is None else millidegrees / 1000


def read_oc_events(root: Path) -> dict[str, int]:
    """Return the number of throttling events since boot by counter, ``{"oc1": 0, "oc2": 0, "oc3": 12}``."""
    counts = {}
    for counter in sysfs.entries(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt"):
        count = sysfs.read_int(counter)
        if count is not None:
            counts[counter.name.removesuffix("_event_cnt")] = count
    return counts


_ALARMS = {"crit": "critical", "max": "average"}


def monitors(root: Path) -> list[Path]:
    """Return the ``hwmon`` folders of all INA3221 monitors."""
    found = sysfs.entries(root / "sys/bus/i2c/drivers/ina3221", "*/hwmon/hwmon*")
    if found:
        return found
    return [path for path in sysfs.entries(root / "sys/class/hwmon", "hwmon*") if _is_ina3221(path)]


def _is_ina3221(monitor: Path) -> bool:
    return "ina3221" in (sysfs.read_text(monitor / "name") or "")


def read_power_mw(root: Path) -> dict[str, float]:
    """Return the instantaneous power by rail; channels without a current, such as the sum of shunts, are left out."""
    power = {}
    for monitor in monitors(root):
        for label in sysfs.entries(monitor, "in*_label"):
            channel = label.name[2 : -len("_label")]
            rail = sysfs.read_text(label)
            millivolt = sysfs.read_int(monitor / f"in{channel}_input")
            milliampere = sysfs.read_int(monitor / f"curr{channel}_input")
            # The label of a channel that is not connected is NC.
            if rail and rail != "NC" and millivolt is not None and milliampere is not None:
                power[rail] = millivolt * milliampere / 1000  # mV x mA = uW
    return power


def read_alarms(root: Path) -> list[str]:
    """Return a sentence for each over-current alarm that is set."""
    found = []
    for monitor in monitors(root):
        for alarm in sysfs.entries(monitor, "curr*_alarm"):
            match = re.fullmatch(r"curr(\d+)_(crit|max)_alarm", alarm.name)
            if match and (sysfs.read_int(alarm) or 0) > 0:
                rail = sysfs.read_text(monitor / f"in{match[1]}_label") or f"channel {match[1]}"
                found.append(f"over-current alarm ({_ALARMS[match[2]]}) on {rail}")
    return found


_GPU_NAMES = ("17000000.gpu", "17000000.ga10b", "*ga10b*", "*gpu*", "*gv11b*")
_GPU_LOADS = (
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/gpu.0/load",
)
_EMC_CLOCKS = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
# A container hides the device tree; docker/README.md mounts the host's model at the last path.
_MODELS = ("proc/device-tree/model", "sys/firmware/devicetree/base/model", "run/host/device-model")


@dataclass(frozen=True)
class Memory:
    """RAM, shared by CPU and GPU, and swap, in MiB; ``None`` for what ``/proc/meminfo`` does not list."""

    ram_total_mib: float | None
    ram_available_mib: float | None
    swap_total_mib: float | None
    swap_free_mib: float | None


def l4t_of(text: str) -> str | None:
    """Return the version of Jetson Linux that ``# R36 (release), REVISION: 4.3, GCID: ...`` names, as "36.4.3"."""
    found = re.search(r"R(\d{1,3}) ?\(release\), ?REVISION: ?([\d.]{1,20})", text, re.ASCII)
    return f"{found[1]}.{found[2]}" if found else None


class Board:
    """A board whose files are below ``root``: the machine itself, or a recorded tree.

    Reading never raises. Missing or forbidden files give ``None`` or empty values, and :attr:`Snapshot.unread` holds
    the reasons.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @cached_property
    def model(self) -> str | None:
        """The device tree's name, such as "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"."""
        texts = (sysfs.read_text(self.root / path) for path in _MODELS)
        return next((text for text in texts if text), None)

    @cached_property
    def l4t(self) -> str | None:
        """The version of Jetson Linux, such as "36.4.3"."""
        return self._l4t_of_release() or self._l4t_of_package()

    def _l4t_of_release(self) -> str | None:
        return l4t_of(sysfs.read_text(self.root / "etc/nv_tegra_release") or "")

    def _l4t_of_package(self) -> str | None:
        """Read the version of the installed package ``nvidia-l4t-core``."""
        text = sysfs.read_text(self.root / "var/lib/dpkg/status") or ""
        for paragraph in text.split("\n\n"):
            if re.search(r"^Package: nvidia-l4t-core$", paragraph, re.MULTILINE):
                found = re.search(r"^Version: ([\d.]+)", paragraph, re.MULTILINE | re.ASCII)
                return found[1] if found else None
        return None

    @property
    def is_jetson(self) -> bool:
        """Whether this is a Jetson, or a container on one."""
        return self.l4t is not None or (self.model is not None and "Jetson" in self.model)

    @cached_property
    def modes(self) -> ModeTable:
        """The power modes of this board."""
        if not self.is_jetson:
            return power_modes.NO_MODES
        return power_modes.read_modes(self.root, self.model, self.memory.ram_total_mib)

    @property
    def memory(self) -> Memory:
        """RAM and swap at this moment."""
        sizes = {}
        for line in (sysfs.read_text(self.root / "proc/meminfo") or "").splitlines():
            found = re.match(r"(\w+):\s*(\d{1,15}) kB", line, re.ASCII)
            if found:
                sizes[found[1]] = int(found[2]) / 1024
        return Memory(*(sizes.get(key) for key in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")))

    def snapshot(self) -> Snapshot:
        """Read the state at this moment, from a few dozen small files."""
        memory = self.memory
        state = Snapshot(
            at_s=time.monotonic(),
            gpu_load_percent=self._gpu_load_percent(),
            temperatures_c=read_temperatures_c(self.root),
            ram_available_mib=memory.ram_available_mib,
            swap_free_mib=memory.swap_free_mib,
        )
        return self._with_jetson(state) if self.is_jetson else state

    def _with_jetson(self, state: Snapshot) -> Snapshot:
        """Add the fields of a Jetson; on other machines the same files have other meanings."""
        mode_id = power_modes.read_mode_id(self.root)
        mode = self.modes.find(mode_id)
        state = replace(
            state,
            gpu_mhz=self._gpu_clock("cur"),
            gpu_max_mhz=self._gpu_clock("max"),
            gpu_min_mhz=self._gpu_clock("min"),
            emc_mhz=next((clock for path in self._emc_paths() if (clock := sysfs.read_mhz(path))), None),
            power_mw=read_power_mw(self.root),
            mode=mode.name if mode else None,
            mode_id=mode_id,
            throttle=(*read_cooling(self.root), *read_trips(self.root), *read_alarms(self.root)),
            oc_events=read_oc_events(self.root),
            mode_gpu_mhz=power_modes.allowed_gpu_mhz(mode, self.model),
            emc_max_mhz=power_modes.read_emc_max_mhz(self.root),
        )
        return replace(
            state, contradiction=power_modes.contradiction(state, self.modes), unread=dict(self._unread(state))
        )

    @cached_property
    def _gpu(self) -> Path | None:
        """The folder of the GPU's clocks."""
        folder = self.root / "sys/class/devfreq"
        found = (path for name in _GPU_NAMES for path in sysfs.entries(folder, name))
        return next(found, None)

    def _gpu_clock(self, which: str) -> float | None:
        return sysfs.read_mhz(self._gpu / f"{which}_freq") if self._gpu else None

    def _gpu_load_percent(self) -> float | None:
        paths = [self.root / path for path in _GPU_LOADS]
        if self._gpu:
            paths.insert(0, self._gpu / "device/load")
        per_mille = next((load for path in paths if (load := sysfs.read_int(path)) is not None), None)
        return None if per_mille is None else per_mille / 10

    def _emc_paths(self) -> list[Path]:
        folder = self.root / "sys/class/devfreq"
        devices = [*sysfs.entries(folder, "*emc*"), *sysfs.entries(folder, "bwmgr")]
        return [*(self.root / path for path in _EMC_CLOCKS), *(device / "cur_freq" for device in devices)]

    def _unread(self, state: Snapshot) -> Iterator[tuple[str, str]]:
        if state.gpu_mhz is None:
            yield "gpu_mhz", f"there is no GPU below {self.root / 'sys/class/devfreq'}"
        if state.emc_mhz is None:
            forbidden = any(sysfs.is_forbidden(path) for path in self._emc_paths())
            yield "emc_mhz", "only root may read it: sudo" if forbidden else "no file holds the memory clock"
        if not state.power_mw:
            yield "power_mw", "there is no INA3221 monitor"
        if state.mode_id is None:
            yield "mode", f"{self.root / 'var/lib/nvpmodel/status'} does not name it"

    def clocks_locked(self, snapshot: Snapshot) -> bool | None:
        """Return whether lowest and highest GPU clock are equal, as after ``jetson_clocks``; ``None``: not readable."""
        return snapshot.is_locked
