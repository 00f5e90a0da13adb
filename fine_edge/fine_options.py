"""Names of fusion methods, and the options of FINE that the paper ablates, as ``r=1,heads=4`` and in models' names.

A model's name states every option that is not the block's default, in one order: ``fcos_mobilenetv3_fine_heads4`` or
``rtdetr_r18_fine_window_ffn0``. What is known by a model's name, from checkpoints to engines, thereby knows its block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from fine_edge.errors import ConfigError
from fine_edge.text import printable

# Fusion methods and attention strategies by name, as plain data that a machine without torch can read.

MethodName = Literal["fine", "sni", "fapn", "adafpn", "mgc"]
AttentionName = Literal["aats", "vanilla", "window", "area", "linear"]
DownName = Literal["avg", "max", "dwconv"]
ModulationName = Literal["residual", "direct", "none"]

# The methods' names in the paper.
METHOD_TITLES: dict[MethodName, str] = {
    "fine": "FINE",
    "sni": "SNI",
    "fapn": "FaPN",
    "adafpn": "AdaFPN",
    "mgc": "A²-FPN MGC",
}

# The complexity of each attention strategy, as Table 3 prints it; ``None`` stands for no attention.
COMPLEXITY: dict[AttentionName | None, str] = {
    None: "-",
    "aats": "O(HlWl/(rk)² · HhWh/k²)",
    "vanilla": "O(HlWl · HhWh)",
    "window": "O(HlWl · M²)",
    "area": "O(HlWl · HhWh / A)",
    "linear": "O(HlWl + HhWh)",
}


_HINT = (
    f"attention={'|'.join(get_args(AttentionName))}, r=N, k=N, heads=N or d=N, down={'|'.join(get_args(DownName))},"
    f" modulation={'|'.join(get_args(ModulationName))}, ffn=N, window=N, areas=N; separated by commas"
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "attention": get_args(AttentionName),
    "down": get_args(DownName),
    "modulation": get_args(ModulationName),
}
_RANGES = {
    "r": (1, 64),
    "k": (1, 64),
    "heads": (1, 1024),
    "d": (1, 1024),
    "ffn": (0, 16),
    "window": (1, 256),
    "areas": (1, 256),
}
# The one attention that an option means something to.
_OF_ATTENTION = {"r": "aats", "k": "aats", "down": "aats", "window": "window", "areas": "area"}
# Parts of a name: the word alone for an attention, the number behind the key, and these for other words.
_PREFIXES = {"down": "down", "modulation": "mod"}
_NUMBERED = re.compile(r"([a-z]+)([0-9]{1,4})")


@dataclass(frozen=True)
class FineOptions:
    """The choices in every FINE block of a model; the defaults are the paper's.

    Attributes:
        attention: strategy of Table 3.
        r: alignment-aware sampling ratio (Fig. 5).
        k: base sampling kernel, at every fusion (Fig. 5); ``None`` for the paper's 1, 2, ... from the deepest fusion.
        heads: number of heads (Table 4); ``None`` for heads of ``d`` channels.
        d: channels of a head.
        down: sampling operator (Table 6).
        modulation: what becomes of M (Fig. 7): ``residual`` is Eq. 9, ``direct`` leaves its ``+ F_low`` out, ``none``
            returns M itself, so that such a block cannot start as the identity.
        ffn: width of the feed-forward in units of C, 0 for none; ``None`` for the detector's own, 2 mostly.
        window: side of the windows of attention ``window``, low-level pixels.
        areas: number of areas of attention ``area``.

    Raises:
        ConfigError: for a value that does not exist, or an option that the attention does not have.
    """

    attention: AttentionName = "aats"
    r: int = 2
    k: int | None = None
    heads: int | None = None
    d: int = 16
    down: DownName = "avg"
    modulation: ModulationName = "residual"
    ffn: int | None = None
    window: int = 7
    areas: int = 4

    def __post_init__(self) -> None:
        for name, value in self.changed().items():
            if name in _CHOICES and value not in _CHOICES[name]:
                raise ConfigError(f"{name} is {printable(str(value))[:40]!r}, known: {', '.join(_CHOICES[name])}")
            if name in _RANGES and not _RANGES[name][0] <= value <= _RANGES[name][1]:
                least, most = _RANGES[name]
                raise ConfigError(f"{name} is {value}, it can be {least} to {most}")
            if _OF_ATTENTION.get(name, self.attention) != self.attention:
                raise ConfigError(
                    f"{name} means nothing to attention {self.attention}",
                    hint=f"leave it out, or take attention={_OF_ATTENTION[name]}",
                )
        if self.heads is not None and "d" in self.changed():
            raise ConfigError("heads and d both say how wide a head is", hint="give one of them")

    def changed(self) -> dict[str, Any]:
        """Return the options that are not the default, by name and in the order of a model's name."""
        own = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {name: value for name, value, default in own if value != default}

    def suffix(self) -> str:
        """Return what stands behind ``_fine`` in a model's name; empty for the paper's block."""
        return "".join(
            f"_{value}" if name == "attention" else f"_{_PREFIXES.get(name, name)}{value}"
            for name, value in self.changed().items()
        )

    def __str__(self) -> str:
        """Return the options as ``--fine`` takes them; empty for the paper's block."""
        return ",".join(f"{name}={value}" for name, value in self.changed().items())

    @classmethod
    def parse(cls, text: str) -> FineOptions:
        """Read options such as ``r=1,heads=4,modulation=direct``.

        Raises:
            ConfigError: for an unknown or repeated key, or a value that does not exist.
        """
        found: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or name not in cls.__dataclass_fields__:
                shown = printable(part.strip())[:40]
                raise ConfigError(f"{shown!r} is no option of FINE", where="--fine", hint=_HINT)
            if name in found:
                raise ConfigError(f"{name} is given twice", where="--fine", hint="give it once")
            found[name] = value if name in _CHOICES else _number(name, value)
        try:
            return cls(**found)
        except ConfigError as error:
            raise ConfigError(error.what, where="--fine", hint=error.hint or _HINT) from error

    @classmethod
    def of_suffix(cls, suffix: str) -> FineOptions | None:
        """Return the options that :meth:`suffix` wrote, and those of the same words in another order; else ``None``."""
        found: dict[str, Any] = {}
        for part in suffix.removeprefix("_").split("_") if suffix else ():
            option = _option(part)
            if option is None or option[0] in found:
                return None
            found[option[0]] = option[1]
        try:
            return cls(**found)
        except ConfigError:
            return None


# The paper's block.
PAPERS = FineOptions()


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise ConfigError(f"{name} is {printable(value)[:40]!r}, it is a whole number", where="--fine", hint=_HINT)
    return int(value)


def _option(part: str) -> tuple[str, Any] | None:
    """Return the option that one part of a name states."""
    if part in _CHOICES["attention"]:
        return "attention", part
    for name, prefix in _PREFIXES.items():
        if part.startswith(prefix) and part.removeprefix(prefix) in _CHOICES[name]:
            return name, part.removeprefix(prefix)
    numbered = _NUMBERED.fullmatch(part)
    return (numbered[1], int(numbered[2])) if numbered and numbered[1] in _RANGES else None
