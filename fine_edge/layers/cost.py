"""What FINE costs: its own layers, and what became different elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import ArtifactError
from fine_edge.files import read_json
from fine_edge.graph.parts import Part
from fine_edge.layers.by_part import PartSum, part_sums, whole
from fine_edge.layers.layer import LayerProfile, profile_from
from fine_edge.text import printable_all

_NOTHING = PartSum(Part("other"), 0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Difference:
    """A part with FINE and without; ``None`` where one of the two does not tell."""

    title: str
    before: PartSum
    after: PartSum

    @property
    def layers(self) -> int:
        """Layers more."""
        return self.after.layers - self.before.layers

    @property
    def ms(self) -> float | None:
        """Milliseconds more."""
        return minus(self.after.ms, self.before.ms)

    @property
    def written_mib(self) -> float | None:
        """MiB of activations written more."""
        return minus(self.after.written_mib, self.before.written_mib)

    @property
    def weights_mib(self) -> float | None:
        """MiB of constants more."""
        return minus(self.after.weights_mib, self.before.weights_mib)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "part": self.title,
            "kernels": self.layers,
            "ms": self.ms,
            "written_mib": self.written_mib,
            "weights_mib": self.weights_mib,
        }


def minus(after: float | None, before: float | None) -> float | None:
    """Difference of two amounts, where both are known."""
    return None if after is None or before is None else after - before


@dataclass(frozen=True)
class FineCost:
    """A model with FINE against the same one without."""

    fine: LayerProfile
    baseline: LayerProfile

    @property
    def by_part(self) -> list[Difference]:
        """Every part that either has, then all layers together."""
        before = {total.title: total for total in part_sums(self.baseline)}
        after = {total.title: total for total in part_sums(self.fine)}
        titles = [*after, *(title for title in before if title not in after)]
        found = [Difference(title, before.get(title, _NOTHING), after.get(title, _NOTHING)) for title in titles]
        return [*found, self.total]

    @property
    def total(self) -> Difference:
        """All layers."""
        return Difference("all", whole(self.baseline), whole(self.fine))

    @property
    def own(self) -> Difference:
        """FINE's own layers."""
        found = (difference for difference in self.by_part if difference.title == "FINE")
        return next(found, Difference("FINE", _NOTHING, _NOTHING))

    @property
    def activation_mib(self) -> float | None:
        """MiB more that the compiler plans for all activations at once."""
        return minus(self.fine.activation_mib, self.baseline.activation_mib)

    def summary(self) -> str:
        """One sentence: FINE's own layers, and what changed elsewhere."""
        own, total = self.own, self.total
        parts = [f"FINE's own kernels: {_said(own.layers, own.ms, own.written_mib, own.weights_mib)}"]
        elsewhere = (
            total.layers - own.layers,
            minus(total.ms, own.ms),
            minus(total.written_mib, own.written_mib),
            minus(total.weights_mib, own.weights_mib),
        )
        parts.append(f"elsewhere: {_said(*elsewhere)}")
        if self.activation_mib is not None:
            parts.append(f"memory planned for activations: {self.activation_mib:+.2f} MiB")
        return "; ".join(parts) + "."

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "summary": self.summary(),
            "activation_mib": self.activation_mib,
            "parts": [difference.to_json() for difference in self.by_part],
        }


def _said(layers: int, ms: float | None, written_mib: float | None, weights_mib: float | None) -> str:
    said = [f"{layers:+d} kernels"]
    said += [f"{ms:+.3f} ms"] if ms is not None else []
    said += [f"{written_mib:+.2f} MiB written"] if written_mib is not None else []
    said += [f"{weights_mib:+.2f} MiB of constants"] if weights_mib is not None else []
    return ", ".join(said)


FORMAT = 1
_HINT = "python -m fine_edge layers ... --json > FILE"


def to_json(profile: LayerProfile, baseline: LayerProfile | None = None) -> dict[str, Any]:
    """What ``--json`` prints: the layers, their sums by part, and what FINE costs."""
    return {
        "format": FORMAT,
        **profile.to_json(),
        "parts": [total.to_json() for total in part_sums(profile)],
        "baseline": baseline.to_json() if baseline else None,
        "cost": FineCost(profile, baseline).to_json() if baseline else None,
    }


def read_layers(path: Path) -> tuple[LayerProfile, LayerProfile | None]:
    """The profile and the baseline's from what :func:`to_json` gave; sums are derived anew.

    Raises:
        ArtifactError: when the file is missing, broken or something else.
    """
    try:
        data = printable_all(read_json(path, ArtifactError, hint=_HINT))
        if data["format"] != FORMAT:
            raise ArtifactError(f"layer profile of format {data['format']}, known: {FORMAT}", where=path, hint=_HINT)
        baseline = data["baseline"]
        return profile_from(data), profile_from(baseline) if baseline else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"is no layer profile ({type(error).__name__}: {error})", where=path, hint=_HINT) from error
