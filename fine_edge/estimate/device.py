"""The profile of a board for estimates: a small JSON file with clocks by power mode, each figure with its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.fields import Count, Positive, from_data
from fine_edge.files import contents_checked, read_json
from fine_edge.text import printable_all

DEFAULT = "orin-nano-8gb"
_FOLDER = Path(__file__).parent / "devices"


@dataclass(frozen=True)
class Mode:
    """A power mode.

    Attributes:
        name: as ``nvpmodel`` calls it.
        gpu_mhz: the GPU's clock.
        memory_gb_s: the memory's bandwidth, 10^9 bytes a second.
        multiprocessors: that the mode leaves switched on; ``None``: all.
    """

    name: str
    gpu_mhz: Positive
    memory_gb_s: Positive
    multiprocessors: Count | None = None


@dataclass(frozen=True)
class Device:
    """The profile of a board. Rates are the peaks of one multiprocessor in one clock.

    Attributes:
        name: what ``--device`` takes.
        title: for people.
        sm: of its GPU.
        multiprocessors: number of them.
        tensor_flops_per_clock: dense FP16 on tensor cores, a multiply-accumulate being two.
        lanes: plain FP32 or FP16 instructions on CUDA cores.
        special_lanes: exponentials, reciprocals and the like.
        l2_bytes_per_clock: read from L2.
        l2_mib: size of L2.
        memory_gib: of the board, GPU and host together.
        default_mode: name of one of ``modes``.
        modes: by name.
        sources: of these figures, by their names.
        family: boards that the intervals of a calibration put together; empty: none that was measured.
        enqueue_us: the host's time to enqueue one kernel where no CUDA graph does.
    """

    name: str
    title: str
    sm: str
    multiprocessors: Count
    tensor_flops_per_clock: Positive
    lanes: Positive
    special_lanes: Positive
    l2_bytes_per_clock: Positive
    l2_mib: Positive
    memory_gib: Positive
    default_mode: str
    modes: dict[str, Mode]
    sources: dict[str, str]
    family: str = ""
    enqueue_us: Positive = 16.0

    def mode(self, name: str | None) -> Mode:
        """Return a mode by its name; without a name, the default mode.

        Raises:
            ConfigError: naming those there are.
        """
        found = self.modes.get(name or self.default_mode)
        if found is None:
            raise ConfigError(
                f"{self.name} has no mode {name!r}", where="--mode", hint=f"known: {', '.join(self.modes)}"
            )
        return found

    def peaks(self, mode: Mode) -> Peaks:
        """Return the peak rates of the board in a mode."""
        multiprocessors = mode.multiprocessors or self.multiprocessors
        clocks = 1e3 * mode.gpu_mhz * multiprocessors
        return Peaks(
            multiprocessors=multiprocessors,
            tensor_flops_per_ms=clocks * self.tensor_flops_per_clock,
            slots_per_ms=clocks * self.lanes,
            memory_bytes_per_ms=1e6 * mode.memory_gb_s,
            l2_bytes_per_ms=clocks * self.l2_bytes_per_clock,
            clocks_per_ms=1e3 * mode.gpu_mhz,
        )

    @property
    def l2_bytes(self) -> int:
        """Return the size of L2 in bytes."""
        return int(self.l2_mib * 2**20)


@dataclass(frozen=True)
class Peaks:
    """The peak rates of a whole board in one mode, per millisecond. A slot is one lane for one clock."""

    multiprocessors: int
    tensor_flops_per_ms: float
    slots_per_ms: float
    memory_bytes_per_ms: float
    l2_bytes_per_ms: float
    clocks_per_ms: float


def known_devices() -> tuple[str, ...]:
    """Return the names of the boards that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def find_device(name: str) -> Device:
    """Return a board by its name, or from a profile of the user's own (``FILE.json``).

    Raises:
        ConfigError: when there is none of this name.
        ArtifactError: when the file cannot be read or is no device profile.
    """
    own = name.endswith(".json")
    if not own and name not in known_devices():
        known = ", ".join(known_devices())
        raise ConfigError(f"no device is called {name!r}", where="--device", hint=f"known: {known}; or a FILE.json")
    path = Path(name) if own else _FOLDER / f"{name}.json"
    hint = f"copy one of {_FOLDER}"
    data = read_json(path, ArtifactError, hint=hint)
    with contents_checked(path, ArtifactError, title="device profile", hint=hint):
        return _device(printable_all(data))


def _device(data: Any) -> Device:
    modes = data.get("modes") if isinstance(data, dict) else None
    if isinstance(modes, dict):  # a mode's name is its key
        named = {name: {**mode, "name": name} for name, mode in modes.items() if isinstance(mode, dict)}
        data = {**data, "modes": modes | named}
    device = from_data(Device, data)
    if device.default_mode not in device.modes:
        raise ValueError(f"default_mode {device.default_mode!r} is none of its modes")
    return device
