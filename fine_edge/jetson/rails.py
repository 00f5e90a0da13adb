"""Power rails and over-current alarms of the INA3221 monitors.

``hwmon`` gives ``in1_label`` (the rail), ``in1_input`` (mV), ``curr1_input`` (mA) and the alarms ``curr1_crit_alarm``
and ``curr1_max_alarm``; below ``/sys/bus/i2c/drivers/ina3221`` since JetPack 5. Sources: the kernel's
``Documentation/hwmon/ina3221.rst``; "Software-Based Power Consumption Modeling" in the Jetson Linux Developer
Guide r36, "Jetson Orin Nano Series ... Power and Performance".
"""

from __future__ import annotations

import re
from pathlib import Path

from fine_edge.jetson import sysfs

_ALARMS = {"crit": "critical", "max": "average"}


def monitors(root: Path) -> list[Path]:
    """The ``hwmon`` folders of all INA3221 monitors."""
    found = sysfs.entries(root / "sys/bus/i2c/drivers/ina3221", "*/hwmon/hwmon*")
    if found:
        return found
    return [path for path in sysfs.entries(root / "sys/class/hwmon", "hwmon*") if _is_ina3221(path)]


def _is_ina3221(monitor: Path) -> bool:
    return "ina3221" in (sysfs.read_text(monitor / "name") or "")


def read_power_mw(root: Path) -> dict[str, float]:
    """Instantaneous power by rail. A channel without a current, such as the sum of shunt voltages, is none."""
    power = {}
    for monitor in monitors(root):
        for label in sysfs.entries(monitor, "in*_label"):
            channel = label.name[2 : -len("_label")]
            rail = sysfs.read_text(label)
            millivolt = sysfs.read_int(monitor / f"in{channel}_input")
            milliampere = sysfs.read_int(monitor / f"curr{channel}_input")
            # NC: a channel that is not connected.
            if rail and rail != "NC" and millivolt is not None and milliampere is not None:
                power[rail] = millivolt * milliampere / 1000  # mV x mA = uW
    return power


def read_alarms(root: Path) -> list[str]:
    """A sentence for each over-current alarm that is set."""
    found = []
    for monitor in monitors(root):
        for alarm in sysfs.entries(monitor, "curr*_alarm"):
            match = re.fullmatch(r"curr(\d+)_(crit|max)_alarm", alarm.name)
            if match and (sysfs.read_int(alarm) or 0) > 0:
                rail = sysfs.read_text(monitor / f"in{match[1]}_label") or f"channel {match[1]}"
                found.append(f"over-current alarm ({_ALARMS[match[2]]}) on {rail}")
    return found
