"""Fusion methods and attention strategies by name, as plain data that a machine without torch can read."""

from __future__ import annotations

from typing import Literal

MethodName = Literal["fine", "sni", "fapn", "adafpn", "mgc"]
AttentionName = Literal["aats", "vanilla", "window", "area", "linear"]
DownName = Literal["avg", "max", "dwconv"]
ModulationName = Literal["residual", "direct", "none"]

METHOD_TITLES: dict[MethodName, str] = {
    "fine": "FINE",
    "sni": "SNI",
    "fapn": "FaPN",
    "adafpn": "AdaFPN",
    "mgc": "A²-FPN MGC",
}
"""The methods' names in the paper."""

COMPLEXITY: dict[AttentionName | None, str] = {
    None: "-",
    "aats": "O(HlWl/(rk)² · HhWh/k²)",
    "vanilla": "O(HlWl · HhWh)",
    "window": "O(HlWl · M²)",
    "area": "O(HlWl · HhWh / A)",
    "linear": "O(HlWl + HhWh)",
}
"""The complexity of each attention strategy, as Table 3 prints it; ``None`` stands for no attention."""
