"""Jetsons as folders of small files, written by hand.

``write_board`` follows the documented formats; its sources are those that board.py and power_modes.py name.
The other boards have the clocks, modes, temperatures and power that real ones were published with, as a user without
root reads them; their paths are those of ``write_board``.
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


def write_clocks(root: Path, cur: float, low: float, high: float, gpu: str = GPU) -> None:
    """GPU clocks, MHz."""
    for name, mhz in (("cur", cur), ("min", low), ("max", high)):
        write(root, f"{gpu}/{name}_freq", round(mhz * 1_000_000))


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


def write_rails(root: Path, *milliamperes: int) -> None:
    """The monitor of the Orin Nano: three rails, and the sum channel that has no current."""
    rails = (("VDD_IN", 5000), ("VDD_CPU_GPU_CV", 5000), ("VDD_SOC", 5016))
    for channel, ((label, millivolt), milliampere) in enumerate(zip(rails, milliamperes, strict=True), 1):
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
    write_rails(root, 1000, 400, 250)
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


def _write_real(root: Path, model: str, release: str, mode_id: int, emc_cap_mhz: int) -> None:
    write(root, "proc/device-tree/model", model + "\0")
    write(root, "etc/nv_tegra_release", f"# {release}, BOARD: generic, EABI: aarch64\n# KERNEL_VARIANT: oot")
    write(root, "var/lib/nvpmodel/status", f"pmode:{mode_id:04}")
    write(root, "sys/kernel/nvpmodel_clk_cap/emc", emc_cap_mhz * 1_000_000)
    write(
        root,
        "proc/meminfo",
        "MemTotal: 7803000 kB\nMemAvailable: 5900000 kB\nSwapTotal: 3901000 kB\nSwapFree: 3901000 kB",
    )
    names = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2", "tj")
    heat = (40281, 40937, "", "", "", 40375, 40968, 39187, 40968)  # the sensors of cv give EAGAIN
    for index, (name, millidegrees) in enumerate(zip(names, heat, strict=True)):
        write_zone(root, index, f"{name}-thermal", millidegrees)
    for counter in ("oc1", "oc2", "oc3"):
        write(root, f"{OC}/{counter}_event_cnt", 0)


def write_super(root: Path) -> Path:
    """An Orin Nano Super on L4T 36.4.7 in 25W, idle, clocks free."""
    _write_real(root, MODEL, "R36 (release), REVISION: 4.7, GCID: 42132812", 1, 3199)
    write(root, "etc/nvpmodel.conf", NVPMODEL)
    write_clocks(root, 306, 306, 918)
    write_rails(root, 872, 97, 274)
    return root


def write_without_super(root: Path, mode_id: int = 0) -> Path:
    """An Orin Nano without Super on L4T 36.5 in 15W (mode 0) or 7W (mode 1), clocks locked, no nvpmodel.conf."""
    _write_real(root, "NVIDIA Jetson Orin Nano Developer Kit", "R36 (release), REVISION: 5.0", mode_id, 2133)
    write_clocks(root, *[(624.75, 408)[mode_id]] * 3)
    write_rails(root, 1055, 206, 284)
    return root


def write_jetpack_7(root: Path) -> Path:
    """An Orin Nano Super on L4T 39.2.1 in MAXN_SUPER, busy, clocks free, its over-current counter running."""
    _write_real(root, MODEL, "R39 (release), REVISION: 2.1, GCID: 46758480", 2, 3199)
    write(root, "etc/nvpmodel.conf", NVPMODEL)
    write_clocks(root, 1006, 306, 1020)
    write(root, "sys/devices/platform/17000000.gpu/load", 990)
    write_rails(root, 3068, 1517, 759)
    write(root, f"{OC}/oc3_event_cnt", 5210)
    return root
