"""A board as the estimate sees it: a small JSON file with clocks by power mode, each figure with its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.files import read_json
from fine_edge.number import positive
from fine_edge.text import printable_all

DEFAULT = "orin-nano-8gb"
_FOLDER = Path(__file__).parent / "devices"


@dataclass(frozen=True)
class Mode:
    """A power mode: the GPU's clock, MHz, and the memory's bandwidth, 10^9 bytes a second."""

    name: str
    gpu_mhz: float
    memory_gb_s: float


@dataclass(frozen=True)
class Device:
    """What is known of a board. Rates are those of one multiprocessor in one clock, and none is ever exceeded.

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
    """

    name: str
    title: str
    sm: str
    multiprocessors: int
    tensor_flops_per_clock: float
    lanes: float
    special_lanes: float
    l2_bytes_per_clock: float
    l2_mib: float
    memory_gib: float
    default_mode: str
    modes: dict[str, Mode]
    sources: dict[str, str]

    def mode(self, name: str | None) -> Mode:
        """A mode by its name, the default one without.

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
        """What the board does at most in a mode."""
        clocks = 1e3 * mode.gpu_mhz * self.multiprocessors
        return Peaks(
            multiprocessors=self.multiprocessors,
            tensor_flops_per_ms=clocks * self.tensor_flops_per_clock,
            slots_per_ms=clocks * self.lanes,
            memory_bytes_per_ms=1e6 * mode.memory_gb_s,
            l2_bytes_per_ms=clocks * self.l2_bytes_per_clock,
            clocks_per_ms=1e3 * mode.gpu_mhz,
        )

    @property
    def l2_bytes(self) -> int:
        """Size of L2."""
        return int(self.l2_mib * 2**20)


@dataclass(frozen=True)
class Peaks:
    """Rates of a whole board in one mode, by the millisecond. A slot is one lane for one clock."""

    multiprocessors: int
    tensor_flops_per_ms: float
    slots_per_ms: float
    memory_bytes_per_ms: float
    l2_bytes_per_ms: float
    clocks_per_ms: float


def known_devices() -> tuple[str, ...]:
    """Names of the boards that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def find_device(name: str) -> Device:
    """A board by its name, or from a profile of the user's own (``FILE.json``).

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
    try:
        return _device(printable_all(read_json(path, ArtifactError, hint=hint)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"is no device profile ({type(error).__name__}: {error})", where=path, hint=hint) from error


def _device(data: dict[str, Any]) -> Device:
    modes = {
        name: Mode(name, positive(mode["gpu_mhz"]), positive(mode["memory_gb_s"]))
        for name, mode in data["modes"].items()
    }
    device = Device(
        name=str(data["name"]),
        title=str(data["title"]),
        sm=str(data["sm"]),
        multiprocessors=int(positive(data["multiprocessors"])),
        tensor_flops_per_clock=positive(data["tensor_flops_per_clock"]),
        lanes=positive(data["lanes"]),
        special_lanes=positive(data["special_lanes"]),
        l2_bytes_per_clock=positive(data["l2_bytes_per_clock"]),
        l2_mib=positive(data["l2_mib"]),
        memory_gib=positive(data["memory_gib"]),
        default_mode=str(data["default_mode"]),
        modes=modes,
        sources=dict(data["sources"]),
    )
    if device.default_mode not in modes:
        raise ValueError(f"default_mode {device.default_mode!r} is none of its modes")
    return device
