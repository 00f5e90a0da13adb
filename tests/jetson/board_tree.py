"""A Jetson Orin Nano 8 GB on L4T 36.4 as a folder of small files, written by hand from the documented formats.

Nothing here was recorded on a board. Sources: those that board.py, rails.py, heat.py and power_modes.py name.
"""

from __future__ import annotations

from pathlib import Path

MODEL = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
GPU = "sys/class/devfreq/17000000.gpu"
THERMAL = "sys/class/thermal"
INA3221 = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
OC = "sys/class/hwmon/hwmon3"
EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"

NVPMODEL = """\
# < POWER_MODEL ID=9 NAME=COMMENT >
< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq
MIN_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/min_freq

<PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_emc_cap/emc_iso_cap

< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
CPU_A78_0 MAX_FREQ 1497600
GPU MIN_FREQ 0
GPU MAX_FREQ 612000000
EMC MAX_FREQ 2133000000

< POWER_MODEL ID=1 NAME=25W >
CPU_A78_0 MAX_FREQ 1344000
GPU MAX_FREQ 918000000
EMC MAX_FREQ 3199000000

< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1
EMC MAX_FREQ 0

< PM_CONFIG DEFAULT=1 >
"""


def write(root: Path, path: str, text: object) -> None:
    """One file, its folders made."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f"{text}\n", encoding="utf-8")


def write_clocks(root: Path, cur: int, low: int, high: int, gpu: str = GPU) -> None:
    """GPU clocks, MHz."""
    for name, mhz in (("cur", cur), ("min", low), ("max", high)):
        write(root, f"{gpu}/{name}_freq", mhz * 1_000_000)


def write_zone(root: Path, index: int, name: str, millidegrees: object) -> None:
    """A thermal zone with NVIDIA's trip points: 99 C throttles, 104.5 C is critical, 70 C is the hot surface."""
    zone = f"{THERMAL}/thermal_zone{index}"
    write(root, f"{zone}/type", name)
    write(root, f"{zone}/temp", millidegrees)
    for trip, (kind, threshold) in enumerate((("passive", 99000), ("critical", 104500), ("passive", 70000))):
        write(root, f"{zone}/trip_point_{trip}_type", kind)
        write(root, f"{zone}/trip_point_{trip}_temp", threshold)
    for device, (kind, trip) in enumerate((("devfreq-17000000.gpu", 0), ("hot-surface-alert", 2), ("pwm-fan", 2))):
        write(root, f"{zone}/cdev{device}/type", kind)
        write(root, f"{zone}/cdev{device}_trip_point", trip)


def write_cooling(root: Path, index: int, kind: str, state: int) -> None:
    """A cooling device."""
    write(root, f"{THERMAL}/cooling_device{index}/type", kind)
    write(root, f"{THERMAL}/cooling_device{index}/cur_state", state)
    write(root, f"{THERMAL}/cooling_device{index}/max_state", 3)


def write_rails(root: Path) -> None:
    """The monitor of the Orin Nano: three rails, and the sum channel that has no current."""
    rails = {1: ("VDD_IN", 5000, 1000), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5016, 250)}
    for channel, (label, millivolt, milliampere) in rails.items():
        write(root, f"{INA3221}/in{channel}_label", label)
        write(root, f"{INA3221}/in{channel}_input", millivolt)
        write(root, f"{INA3221}/curr{channel}_input", milliampere)
        write(root, f"{INA3221}/curr{channel}_crit_alarm", 0)
        write(root, f"{INA3221}/curr{channel}_max_alarm", 0)
    write(root, f"{INA3221}/in7_label", "sum of shunt voltages")
    write(root, f"{INA3221}/in7_input", 3)


def write_board(root: Path) -> Path:
    """An Orin Nano at rest in 25W after ``jetson_clocks``, read as root. Returns ``root``."""
    write(root, "proc/device-tree/model", MODEL + "\0")
    write(root, "etc/nv_tegra_release", RELEASE)
    write(root, "etc/nvpmodel.conf", NVPMODEL)
    write(root, "var/lib/nvpmodel/status", "pmode:0001 fmode:quiet")
    write(
        root,
        "proc/meminfo",
        "MemTotal: 7801856 kB\nMemAvailable: 5242880 kB\nSwapTotal: 3900928 kB\nSwapFree: 3900928 kB",
    )
    write_clocks(root, 918, 918, 918)
    write(root, "sys/devices/platform/17000000.gpu/load", 987)
    write(root, EMC, 3199000000)
    write_rails(root)
    for index, (name, millidegrees) in enumerate(
        (("cpu-thermal", 51000), ("gpu-thermal", 49500), ("tj-thermal", 51250))
    ):
        write_zone(root, index, name, millidegrees)
    write_zone(root, 3, "cv0-thermal", "")
    for index, (kind, state) in enumerate((("pwm-fan", 2), ("hot-surface-alert", 1), ("gpu-throttle-alert", 0))):
        write_cooling(root, index, kind, state)
    for counter, count in (("oc1", 0), ("oc2", 0), ("oc3", 12)):
        write(root, f"{OC}/{counter}_event_cnt", count)
    write(root, f"{OC}/name", "soctherm_oc")
    return root
