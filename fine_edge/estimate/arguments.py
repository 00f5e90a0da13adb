"""The options that all commands share: which board, in which mode, by whose constants."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge.estimate.calibration import Calibration, find_calibration
from fine_edge.estimate.device import DEFAULT, Device, Mode, find_device, known_devices


def add_board(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--mode`` and ``--calibration``."""
    add_device(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="constants of your own board")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--mode``."""
    known = ", ".join(known_devices())
    parser.add_argument("--device", default=DEFAULT, metavar="NAME|FILE", help=f"{known}, or a profile of your own")
    parser.add_argument("--mode", metavar="MODE", help="power mode (default: the device's fastest)")


def read_board(given: argparse.Namespace) -> tuple[Device, Mode, Calibration]:
    """The board that was asked for.

    Raises:
        FineEdgeError: when there is no such device, mode or calibration.
    """
    device = find_device(given.device)
    return device, device.mode(given.mode), find_calibration(device.name, given.calibration)
