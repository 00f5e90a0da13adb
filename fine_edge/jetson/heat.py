"""Temperatures and power, and the throttling that they cause.

On Orin a cooling device is a fan, a clock that is throttled (``devfreq-17000000.gpu``, ``cpufreq-cpu0``), a message
that this happens (``gpu-throttle-alert``), or a message that the case is hot (``hot-surface-alert``, from 70 C, without
throttling). A zone's ``cdev0`` names a cooling device and ``cdev0_trip_point`` the trip point it belongs to. Only
trip points of throttling devices count. Hardware throttling by current is counted per boot in ``oc1_event_cnt``
(under-voltage), ``oc2`` (average) and ``oc3`` (instantaneous over-current) of the ``soctherm_oc`` monitor.

Sources: the kernel's ``Documentation/driver-api/thermal/sysfs-api.rst``; thermal management in the Jetson Linux
Developer Guide r36 (software throttling of CPU and GPU at 99 C); NVIDIA's ``tegra23x-oc-event`` driver.
"""

from __future__ import annotations

import re
from pathlib import Path

from fine_edge.jetson import sysfs

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
