"""The cost of FINE: its own layers, and what changed in other parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError
from fine_edge.fields import from_data
from fine_edge.files import contents_checked, read_document
from fine_edge.graph.parts import Part
from fine_edge.layers.layer import LayerProfile, PartSum, part_sums, whole
from fine_edge.text import printable_all

_NOTHING = PartSum(Part("other"), 0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PartDifference:
    """A part of a detector with FINE and without; a figure is ``None`` where one of the two has none."""

    title: str
    before: PartSum
    after: PartSum

    @property
    def kernels(self) -> int:
        """Return the number of kernels more."""
        return self.after.kernels - self.before.kernels

    @property
    def ms(self) -> float | None:
        """Return the milliseconds more."""
        return minus(self.after.ms, self.before.ms)

    @property
    def written_mib(self) -> float | None:
        """Return the MiB of activations written more."""
        return minus(self.after.written_mib, self.before.written_mib)

    @property
    def weights_mib(self) -> float | None:
        """Return the MiB of constants more."""
        return minus(self.after.weights_mib, self.before.weights_mib)

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {
            "part": self.title,
            "kernels": self.kernels,
            "ms": self.ms,
            "written_mib": self.written_mib,
            "weights_mib": self.weights_mib,
        }


def minus(after: float | None, before: float | None) -> float | None:
    """Return the difference of two amounts, or ``None`` where one is unknown."""
    return None if after is None or before is None else after - before


@dataclass(frozen=True)
class FineCost:
    """The layers of a model with FINE and of the same model without."""

    fine: LayerProfile
    baseline: LayerProfile

    @property
    def by_part(self) -> list[PartDifference]:
        """Return the difference of every part that either has, then of all layers together."""
        before = {total.title: total for total in part_sums(self.baseline)}
        after = {total.title: total for total in part_sums(self.fine)}
        titles = [*after, *(title for title in before if title not in after)]
        found = [PartDifference(title, before.get(title, _NOTHING), after.get(title, _NOTHING)) for title in titles]
        return [*found, self.total]

    @property
    def total(self) -> PartDifference:
        """Return the difference of all layers together."""
        return PartDifference("all", whole(self.baseline), whole(self.fine))

    @property
    def own(self) -> PartDifference:
        """Return the difference that FINE's own layers make."""
        found = (difference for difference in self.by_part if difference.title == "FINE")
        return next(found, PartDifference("FINE", _NOTHING, _NOTHING))

    @property
    def activation_mib(self) -> float | None:
        """Return the MiB more that the compiler plans for all activations at once."""
        return minus(self.fine.activation_mib, self.baseline.activation_mib)

    def summary(self) -> str:
        """Return one sentence on FINE's own layers and on what changed elsewhere."""
        own, total = self.own, self.total
        parts = [f"FINE's own kernels: {_described(own.kernels, own.ms, own.written_mib, own.weights_mib)}"]
        elsewhere = (
            total.kernels - own.kernels,
            minus(total.ms, own.ms),
            minus(total.written_mib, own.written_mib),
            minus(total.weights_mib, own.weights_mib),
        )
        parts.append(f"elsewhere: {_described(*elsewhere)}")
        if self.activation_mib is not None:
            parts.append(f"memory planned for activations: {self.activation_mib:+.2f} MiB")
        return "; ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {
            "summary": self.summary(),
            "activation_mib": self.activation_mib,
            "parts": [difference.to_json() for difference in self.by_part],
        }


def _described(kernels: int, ms: float | None, written_mib: float | None, weights_mib: float | None) -> str:
    parts = [f"{kernels:+d} kernels"]
    parts += [f"{ms:+.3f} ms"] if ms is not None else []
    parts += [f"{written_mib:+.2f} MiB written"] if written_mib is not None else []
    parts += [f"{weights_mib:+.2f} MiB of constants"] if weights_mib is not None else []
    return ", ".join(parts)


FORMAT = 1
_HINT = "python -m fine_edge layers ... --json > FILE"


def to_json(profile: LayerProfile, baseline: LayerProfile | None = None) -> dict[str, Any]:
    """Return what ``--json`` prints: the layers, their sums by part, and what FINE costs."""
    return {
        "format": FORMAT,
        **profile.to_json(),
        "parts": [total.to_json() for total in part_sums(profile)],
        "baseline": baseline.to_json() if baseline else None,
        "cost": FineCost(profile, baseline).to_json() if baseline else None,
    }


def read_layers(path: Path) -> tuple[LayerProfile, LayerProfile | None]:
    """Read the profile and the baseline's out of a file that :func:`to_json` made; sums are computed again.

    Raises:
        ArtifactError: when the file is missing, broken or something else.
    """
    data = read_document(path, ArtifactError, title="layer profile", format_=FORMAT, hint=_HINT)
    with contents_checked(path, ArtifactError, title="layer profile", hint=_HINT):
        data = printable_all(data)
        baseline = data.get("baseline")
        for written in (data, baseline):
            if isinstance(written, dict):  # before there were remarks, files had none
                written.setdefault("remarks", [])
        profile = from_data(LayerProfile, data, complete=True)
        return profile, from_data(LayerProfile, baseline, complete=True) if baseline else None
