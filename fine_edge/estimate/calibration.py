"""The constants that latencies on a real board gave, and where they came from: data, one JSON file for each board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fine_edge import files
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.files import read_json
from fine_edge.number import amount, finite
from fine_edge.text import printable_all

FORMAT = 2
_FOLDER = Path(__file__).parent / "calibrations"
_HINT = "python -m fine_edge estimate calibrate RECORD... --out FILE"


@dataclass(frozen=True)
class Constants:
    """What cannot be known without the board. Shares are of its peaks and at most 1.

    Attributes:
        tensor_share: of the tensor cores' rate.
        memory_share: of the memory's bandwidth.
        gather_share: of L2's bandwidth, for scattered reads.
        launch_us: of every kernel, microseconds.
        copy_gb_s: of the input to the device and the outputs back, 10^9 bytes a second.
    """

    tensor_share: float
    memory_share: float
    gather_share: float
    launch_us: float
    copy_gb_s: float

    def __post_init__(self) -> None:
        for name in ("tensor_share", "memory_share", "gather_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not in (0, 1]")
        if self.launch_us < 0 or self.copy_gb_s <= 0:
            raise ValueError(f"launch_us is {self.launch_us}, copy_gb_s is {self.copy_gb_s}")


@dataclass(frozen=True)
class Calibration:
    """Constants and their origin.

    Attributes:
        device: name of the board.
        mode: power mode that they were fitted in; other modes are scaled by clocks.
        constants: themselves.
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
    rows: Mapping[str, float]
    left_out: Mapping[str, float]
    compiler: str
    validated: Mapping[str, float] = field(default_factory=dict)

    @property
    def spread(self) -> tuple[float, float]:
        """Factors from a predicted latency to its lower and upper end: what rows not fitted were off by at most."""
        errors = (0.0, *self.left_out.values(), *self.validated.values())
        return 1 / (1 + max(errors)), 1 / (1 + min(errors))

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {
            "format": FORMAT,
            **vars(self),
            "constants": vars(self.constants),
            "rows": dict(self.rows),
            "left_out": dict(self.left_out),
            "validated": dict(self.validated),
        }


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file, whole or not at all."""
    files.write_text(path, json.dumps(calibration.to_json(), indent=1) + "\n")


def find_calibration(device: str, path: Path | None = None) -> Calibration:
    """The user's own, or the one that comes with the package for a board.

    Raises:
        ConfigError: when there is none for the board.
        ArtifactError: when the file cannot be read or is no calibration.
    """
    path = path or _FOLDER / f"{device}.json"
    if path.parent == _FOLDER and not path.is_file():
        raise ConfigError(f"nothing is calibrated for {device}", where="--calibration", hint=_HINT)
    try:
        data = printable_all(read_json(path, ArtifactError, hint=_HINT))
        if data["format"] != FORMAT:
            raise ArtifactError(f"calibration of format {data['format']}, known: {FORMAT}", where=path, hint=_HINT)
        return _calibration(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"is no calibration ({type(error).__name__}: {error})", where=path, hint=_HINT) from error


def _errors(data: dict[str, Any]) -> dict[str, float]:
    """Return errors by row. What was predicted is a part of what was measured, or a multiple: more than -1."""
    found = {str(name): finite(error) for name, error in data.items()}
    if min(found.values(), default=0.0) <= -1:
        raise ValueError("an error of -100 % or less")
    return found


def _calibration(data: dict[str, Any]) -> Calibration:
    return Calibration(
        device=str(data["device"]),
        mode=str(data["mode"]),
        constants=Constants(**{name: amount(value) for name, value in data["constants"].items()}),
        origin=str(data["origin"]),
        rows=_errors(data["rows"]),
        left_out=_errors(data["left_out"]),
        compiler=str(data["compiler"]),
        validated=_errors(data["validated"]),
    )
