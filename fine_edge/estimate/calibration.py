"""The constants fitted to latencies of real boards, their origin and their errors: one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from fine_edge import files
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.device import Device
from fine_edge.fields import Amount, Count, Positive, from_data, to_data
from fine_edge.files import contents_checked, read_document
from fine_edge.text import printable_all

FORMAT = 4
# The GPU of all Orins, which the constants that come with the package hold for.
CALIBRATED_SM = "sm_87"
_FILE = Path(__file__).parent / "calibrations" / "orin.json"
# Predicted over measured minus 1: what was predicted is a part of what was measured or a multiple of it.
RelativeError = Annotated[float, Meta(gt=-1, le=1e15)]
_HINT = "python -m fine_edge estimate calibrate RECORD... --out FILE"

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_SHARES = ("tensor_share", "tf32_share", "memory_share", "lanes_share", "gather_share")


@dataclass(frozen=True)
class Constants:
    """The constants that only measurements give. Shares are of a board's peaks, so at most 1.

    Attributes:
        tensor_share: of the tensor cores' rate in FP16 and in INT8.
        tf32_share: of their rate in TF32, in which FP32 graphs are multiplied.
        memory_share: of the memory's bandwidth.
        lanes_share: of the CUDA cores' rate.
        gather_share: of L2's bandwidth, for scattered reads.
        input_share: of the memory's bandwidth, while the input is brought into the kernels' layout.
        gate_slots: lane-clocks of an element that a sigmoid or the like makes.
        kernel_clocks: clocks of the GPU that every kernel takes beside its work.
        gap_us: time between two kernels where no CUDA graph holds them, microseconds.
        call_us: time that a call from Python takes beside the kernels, microseconds.
        copy_gb_s: of the input to the device and the outputs back, 10^9 bytes a second.
    """

    tensor_share: Amount
    tf32_share: Amount
    memory_share: Amount
    lanes_share: Amount
    gather_share: Amount
    input_share: Amount
    gate_slots: Amount
    kernel_clocks: Amount
    gap_us: Amount
    call_us: Amount
    copy_gb_s: Amount

    def __post_init__(self) -> None:
        for name in (*_SHARES, "input_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not in (0, 1]")
        if self.copy_gb_s <= 0:
            raise ValueError(f"copy_gb_s is {self.copy_gb_s}, not above 0")

    def share_of_tensor_cores(self, precision: Precision) -> float:
        """Return the share of the tensor cores' rate in a precision."""
        return self.tf32_share if precision == "fp32" else self.tensor_share


@dataclass(frozen=True)
class Interval:
    """Factors from an estimate to bounds that hold nine of ten measured times, and the number of rows they are of."""

    low: Positive
    high: Positive
    rows: Count


@dataclass(frozen=True)
class Calibration:
    """The constants, their origin and their errors.

    Attributes:
        devices: names of the boards that were measured.
        mode: power mode that they were measured in; empty for rows of several modes.
        constants: that were fitted.
        origin: of the latencies, for people.
        rows: predicted over measured latency minus 1, by row, after the fit.
        left_out: the same by row when its model was not among those fitted.
        intervals: from rows that were left out, by precision and family of boards.
        compiler: that the kernels were compiled by.
    """

    devices: tuple[str, ...]
    mode: str
    constants: Constants
    origin: str
    rows: Mapping[str, RelativeError]
    left_out: Mapping[str, RelativeError]
    compiler: str
    intervals: Mapping[Precision, Mapping[str, Interval]] = field(default_factory=dict)

    def interval(self, precision: Precision, device: Device) -> tuple[float, float]:
        """Return the factors from a predicted latency to its bounds.

        They are those of the board's family, or the widest of all families where this very board was never measured.
        """
        found = dict(self.intervals.get(precision, {}))
        if device.name in self.devices and device.family in found:
            found = {device.family: found[device.family]}
        elif not found:
            found = {name: one for families in self.intervals.values() for name, one in families.items()}
        lows, highs = [one.low for one in found.values()], [one.high for one in found.values()]
        return min((1.0, *lows)), max((1.0, *highs))

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as a file holds it."""
        return {"format": FORMAT, **to_data(self)}


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file, whole or not at all."""
    files.write_text(path, json.dumps(calibration.to_json(), indent=1) + "\n")


def find_calibration(device: Device, path: Path | None = None) -> Calibration:
    """Return the user's own calibration, or the one that comes with the package, which is of Orins.

    Raises:
        ConfigError: when the board has another GPU and no calibration is given.
        ArtifactError: when the file cannot be read or is no calibration.
    """
    if path is None and device.sm != CALIBRATED_SM:
        raise ConfigError(
            f"nothing is calibrated for {device.sm}, the GPU of {device.name}", where="--calibration", hint=_HINT
        )
    path = path or _FILE
    data = read_document(path, ArtifactError, title="calibration", format_=FORMAT, hint=_HINT)
    with contents_checked(path, ArtifactError, title="calibration", hint=_HINT):
        return from_data(Calibration, printable_all(data), complete=True)
