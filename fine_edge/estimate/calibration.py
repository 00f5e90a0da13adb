"""The constants fitted to latencies of a real board, and their origin: one JSON file for each board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fine_edge import files
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.fields import Amount, from_data, to_data
from fine_edge.files import contents_checked, read_document
from fine_edge.text import printable_all

FORMAT = 2
_FOLDER = Path(__file__).parent / "calibrations"
RelativeError = Annotated[float, Meta(gt=-1, le=1e15)]
"""Predicted over measured minus 1: what was predicted is a part of what was measured or a multiple of it."""
_HINT = "python -m fine_edge estimate calibrate RECORD... --out FILE"


@dataclass(frozen=True)
class Constants:
    """The constants that only a measurement on the board gives. Shares are of its peaks, so at most 1.

    Attributes:
        tensor_share: of the tensor cores' rate.
        memory_share: of the memory's bandwidth.
        gather_share: of L2's bandwidth, for scattered reads.
        launch_us: of every kernel, microseconds.
        copy_gb_s: of the input to the device and the outputs back, 10^9 bytes a second.
    """

    tensor_share: Amount
    memory_share: Amount
    gather_share: Amount
    launch_us: Amount
    copy_gb_s: Amount

    def __post_init__(self) -> None:
        for name in ("tensor_share", "memory_share", "gather_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not in (0, 1]")
        if self.launch_us < 0 or self.copy_gb_s <= 0:
            raise ValueError(f"launch_us is {self.launch_us}, copy_gb_s is {self.copy_gb_s}")


@dataclass(frozen=True)
class Calibration:
    """The constants of a board, their origin and their errors.

    Attributes:
        device: name of the board.
        mode: power mode that they were fitted in; other modes are scaled by clocks.
        constants: that were fitted.
        origin: of the latencies, for people.
        rows: predicted over measured latency minus 1, by row, after the fit.
        left_out: the same by row when it was not among those fitted.
        compiler: that the kernels were compiled by.
        validated: the same of other detectors, none of which was ever fitted.
    """

    device: str
    mode: str
    constants: Constants
    origin: str
    rows: Mapping[str, RelativeError]
    left_out: Mapping[str, RelativeError]
    compiler: str
    validated: Mapping[str, RelativeError] = field(default_factory=dict)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the factors from a predicted latency to its bounds: the largest errors of rows not fitted."""
        errors = (0.0, *self.left_out.values(), *self.validated.values())
        return 1 / (1 + max(errors)), 1 / (1 + min(errors))

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as a file holds it."""
        return {"format": FORMAT, **to_data(self)}


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file, whole or not at all."""
    files.write_text(path, json.dumps(calibration.to_json(), indent=1) + "\n")


def find_calibration(device: str, path: Path | None = None) -> Calibration:
    """Return the user's own calibration, or the one that comes with the package for a board.

    Raises:
        ConfigError: when there is none for the board.
        ArtifactError: when the file cannot be read or is no calibration.
    """
    path = path or _FOLDER / f"{device}.json"
    if path.parent == _FOLDER and not path.is_file():
        raise ConfigError(f"nothing is calibrated for {device}", where="--calibration", hint=_HINT)
    data = read_document(path, ArtifactError, title="calibration", format_=FORMAT, hint=_HINT)
    with contents_checked(path, ArtifactError, title="calibration", hint=_HINT):
        return from_data(Calibration, printable_all(data), complete=True)
