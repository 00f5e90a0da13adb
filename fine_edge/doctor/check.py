"""One thing that was looked at, and the page they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "absent"]
"""``fail``: it matters on this machine and is missing or broken. ``absent``: it is not here, and need not be."""


@dataclass(frozen=True)
class Check:
    """One line of the page."""

    name: str
    status: Status
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """As ``--json`` shows it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Diagnosis:
    """The whole page."""

    machine: dict[str, Any]
    checks: tuple[Check, ...]
    backends: tuple[Check, ...]

    @property
    def is_fit(self) -> bool:
        """At least one backend works, and nothing that matters on this machine is missing or broken."""
        broken = any(check.status == "fail" for check in (*self.checks, *self.backends))
        return not broken and any(backend.status == "ok" for backend in self.backends)

    def to_json(self) -> dict[str, Any]:
        """``machine``, ``checks`` and ``backends`` by name."""
        return {
            "machine": self.machine,
            "checks": [check.to_json() for check in self.checks],
            "backends": {
                backend.name: {"status": backend.status, "found": backend.found, "mend": backend.mend}
                for backend in self.backends
            },
        }
