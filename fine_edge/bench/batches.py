"""Measure one artifact at several batches: each is a row, and all are measured in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from fine_edge import machine
from fine_edge.bench import device
from fine_edge.bench.backends import BenchOptions, device_length, host_length
from fine_edge.bench.device import DeviceOptions, DeviceSetup
from fine_edge.bench.measure import Length, Slice
from fine_edge.bench.prepare import Prepared, load_images, vouched
from fine_edge.bench.record import MeasuredGroup, Record
from fine_edge.bench.session import make_row, time_group
from fine_edge.bench.setup import Extras, HostSetup, Setup
from fine_edge.bench.suites import SuiteRow
from fine_edge.contract import Contract, batches_text
from fine_edge.errors import ConfigError
from fine_edge.images import NamedImage

SUITE = "batches"
MOST_BATCHES = 16


def parse_batches(text: str) -> tuple[int, ...]:
    """Read ``1,2,4,8``: the batches to measure, in the order of the table.

    Raises:
        ConfigError: for any other text.
    """
    parts = [part.strip() for part in text.split(",")]
    # isdigit() takes "²" as well, which int() refuses; and int() refuses more than 4300 digits in words of its own.
    if not all(part.isascii() and part.isdigit() and len(part) < 6 and int(part) for part in parts):
        raise ConfigError(f"batches {text!r} are not understood", where="--batches", hint="give numbers, as 1,2,4,8")
    # Smallest first, because ratios refer to the first row.
    found = tuple(sorted({int(part) for part in parts}))
    if not 2 <= len(found) <= MOST_BATCHES:
        what = f"{len(found)} batches are not 2 to {MOST_BATCHES}, which can be compared"
        raise ConfigError(what, where="--batches", hint="give several, as 1,2,4,8")
    return found


@dataclass(frozen=True)
class BatchRow(SuiteRow):
    """The artifact at one batch."""

    batch: int = 1

    @property
    def label(self) -> str:
        """Return what tables call the row."""
        return f"{self.model} x {self.batch}"


@dataclass(frozen=True)
class Subjects:
    """What is measured: the rows of one file, and what is said of all of them."""

    path: Path
    contract: Contract
    precision: str
    rows: tuple[Prepared, ...]


def subjects(path: Path, batches: Sequence[int]) -> Subjects:
    """Return the rows of an ONNX file or an engine.

    Raises:
        ArtifactError: when the file and its contract do not belong together.
        ConfigError: when the file does not take one of the batches.
    """
    known = vouched(path)
    _require_taken(known.contract, batches, path)
    image = known.contract.inputs[0]
    rows = tuple(
        Prepared(
            BatchRow(known.contract.model, batch=batch),
            path,
            known.sha256,
            known.contract,
            replace(image, shape=(batch, *image.shape[1:])),  # (B, C, H, W), or frames: (B, H, W, C)
            known.weights_mib,
        )
        for batch in batches
    )
    return Subjects(path, known.contract, known.precision, rows)


def _require_taken(contract: Contract, batches: Sequence[int], path: Path) -> None:
    # The least, the optimum and the most of the file.
    if contract.batches is None:
        what = f"takes one batch, {contract.batch}"
    elif contract.batches[0] <= min(batches) and max(batches) <= contract.batches[2]:
        return
    else:
        what = f"takes batches of {contract.batches[0]} to {contract.batches[2]}, not all of {batches_text(batches)}"
    hint = f"python -m fine_edge export {contract.model} --batch {min(batches)}:{max(batches)}"
    raise ConfigError(what, where=path, hint=hint + ("; then engine build" if path.suffix == ".engine" else ""))


class EngineSetup(DeviceSetup):
    """One engine, loaded once for each batch, so that each has buffers and a CUDA graph of its own."""

    def finish(self, images: Sequence[NamedImage]) -> None:  # noqa: ARG002 - a batch has no time from end to end
        self._watch.finish()

    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:
        # The watch divides by queries, and a query is a whole batch here.
        found = super().extras(index, samples_ms, slices)
        if found.state is None or found.state.energy_mj_per_image is None:
            return found
        energy = found.state.energy_mj_per_image / self._prepared[index].image.shape[0]
        return replace(found, state=replace(found.state, energy_mj_per_image=energy))


def _setup(measured: Subjects, options: BenchOptions) -> tuple[Setup, Length]:
    if measured.path.suffix != ".engine":
        length = host_length(options)
        return HostSetup(measured.rows, length, options.threads), length
    device.require_device(measured.contract.model)
    length = device_length(options)
    how = DeviceOptions(
        options.chosen_precision, options.folder, cuda_graph=options.cuda_graph, spin=options.spin, quick=options.quick
    )
    return EngineSetup(measured.rows, length, how), length


def run_batches(path: Path, batches: Sequence[int], options: BenchOptions) -> Record:
    """Measure a file at several batches on this machine.

    Args:
        path: ONNX file or engine, with its contract.
        batches: smallest first; ratios refer to it.
        options: how long and how; its suite is not used.

    Raises:
        FineEdgeError: when the file does not take a batch, or an image or the backend fails.
    """
    measured = subjects(path, batches)
    setup, length = _setup(measured, options)
    images = load_images(options.images, length.rounds, _frame(measured.contract))
    setup.prepare()
    # All batches in the same rounds, so that drift of the machine falls on each alike.
    timings = time_group(measured.rows, images, setup)
    first = measured.rows[0].row.label
    rows = tuple(
        make_row(item, index, timings, rtx=None, baseline=first, batch=item.image.shape[0])
        for index, item in enumerate(measured.rows)
    )
    return Record(
        suite=SUITE,
        title=f"{measured.contract.model} at batches of {', '.join(map(str, batches))}",
        backend=timings.backend,
        precision=measured.precision,
        input_hw=measured.contract.input_hw,
        machine=machine.describe(),
        images=tuple(image.name for image in images),
        rounds=len(rows[0].samples_ms),
        threads=options.threads,
        quick=options.quick,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        harness=timings.harness,
        rows=rows,
        platform=setup.platform,
        cuda_graph=setup.cuda_graph,
        groups=(MeasuredGroup(rows[0].model, timings.process_peak_mib),),
    )


def _frame(contract: Contract) -> tuple[int, int] | None:
    # Photographs are stretched to the frames that such a graph takes.
    return contract.input_hw if contract.preprocessing.in_graph else None
