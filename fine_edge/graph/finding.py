"""What a rule found in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing found by one rule.

    Attributes:
        rule: number of the rule, ``FE04``.
        severity: ``error``: TensorRT 10.7 refuses the graph or computes something else; ``warning``: it
            builds, and is slower or needs more than the graph; ``info``: good to know.
        node: name of the node, or ``graph`` where no single node is to blame.
        message: what is wrong and what follows from it.
        mend: what to do.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    mend: str

    def to_json(self) -> dict[str, str]:
        """As ``--json`` prints it."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "node": self.node,
            "message": self.message,
            "mend": self.mend,
        }
