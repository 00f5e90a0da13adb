"""Read logs of trtexec, releases 8.6 to 10.16, and of TensorRT's builder, line by line.

Formats: NVIDIA/TensorRT, samples/common (sampleOptions.cpp, sampleDevice.cpp, sampleReporting.cpp), and published logs.
``&&&& RUNNING`` begins a run and ``&&&& PASSED`` ends it; lines between have a time, a level and, where TensorRT
itself wrote them, ``[TRT]``. Standard error may come before, behind or in the middle of lines of standard output.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from fine_edge.errors import RecordError
from fine_edge.files import contents_checked, file_size
from fine_edge.text import printable
from fine_edge.trtexec.log import LogStatistic, RunAverages, TrtexecLog, flags_of

# Lines of a log as shells write it: any line ends, UTF-8 or the UTF-16 of PowerShell, colours, torn lines.

HINT = "take what trtexec prints, whole: trtexec --loadEngine=ENGINE > FILE"
# Characters read at once: a file without line ends must not come into memory whole.
_LONGEST_LINE = 2**16
# PowerShell's ">" writes UTF-16, and editors on Windows put a mark before UTF-8.
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Colours, of a log that was recorded on a terminal: "\x1b[32m[I]\x1b[0m".
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# "[07/20/2025-17:58:20] [I]", looked ahead for, so that a split in front of it keeps it.
_STAMP = re.compile(r"(?=\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[)")


def lines_of(path: Path) -> Iterator[str]:
    """Give lines without escapes of a terminal; a line with another's beginning in its middle counts as two.

    Raises:
        RecordError: when the file is no text.
    """
    with _opened(path) as handle:
        for line in iter(lambda: handle.readline(_LONGEST_LINE), ""):
            # Two streams into one file can tear a line: " torn[07/20/2025-17:58:20] [I] Throughput: 70.2959 qps".
            yield from _STAMP.split(_ESCAPE.sub("", line).rstrip())


def is_json(path: Path, hint: str = "") -> bool:
    """Return whether a file begins as a JSON document, which no log does: its brackets hold a date or a level.

    Args:
        path: the file.
        hint: what to do about a file that is missing.

    Raises:
        RecordError: when there is no such file, or it is no text.
    """
    file_size(path, RecordError, hint=hint)
    with _opened(path) as handle:
        # JSON may be indented in any way; a log begins "[07/20/2025-...", "[I]" or "&&&&".
        head = "".join(handle.read(_LONGEST_LINE).split())
    return head[:1] == "{" or (head[:1] == "[" and head[1:2] in ("", "]", "{", "[", '"'))


def _opened(path: Path) -> TextIO:
    try:
        with path.open("rb") as handle:
            head = handle.read(_LONGEST_LINE)
        encoding = next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), "utf-8")
        # UTF-16 has a zero byte in every Latin letter; in any other text there is none.
        if encoding != "utf-16" and b"\0" in head:
            raise RecordError("is no text", where=path, hint=HINT)
        # A name in a broken encoding must not cost the figures of the other lines.
        return path.open(encoding=encoding, errors="replace")
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror or error})", where=path, hint=HINT) from error


NO_LOG = "is no log of trtexec or of TensorRT's builder"
# A verbose log of a build has some 10 MB.
MOST_BYTES = 256 * 2**20
# Nobody vouches for a log, and every run and warning is kept in memory.
MOST_RUNS = 1000
MOST_WARNINGS = 20
_LONGEST_TEXT = 160
# The bound of the numbers in a record, see fine_edge.fields.
_MOST = 1e15

# trtexec prints "[I] [TRT] Loaded engine size: 37 MiB", the Python builder "[TRT] [I] Loaded engine size: 37 MiB".
_LEVEL = re.compile(r"\[([VIWEF])\](?: \[TRT\])?(?: |$)")
# "&&&& RUNNING TensorRT.trtexec [TensorRT v100700] [b23] # trtexec --loadEngine=model.engine --fp16"
_RUN = re.compile(
    r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec \[TensorRT v([\d.]{1,12})\](?: \[b\d+\])?(?: # (.*))?"
)
# Neither "nan" nor "inf", which float() takes.
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:e[+-]?\d+)?")
# "min = 14.354 ms, max = 22.994 ms, mean = 14.5245 ms, median = 14.4854 ms, percentile(99%) = 14.6179 ms"
_PART = re.compile(r"(min|max|mean|median|percentile\((\d+(?:\.\d+)?)%\)) = (\S+) ms")
_SHAPE = re.compile(r"\d+(?:x\d+)*")

# The value behind the colon, and what it becomes. Lines that explain a figure begin alike and have no number there.
_KEYS: dict[str, tuple[str, str]] = {
    "TensorRT version": ("tensorrt", "text"),
    "Selected Device": ("gpu", "text"),
    "Compute Capability": ("sm", "capability"),
    "SMs": ("sms", "whole"),
    "Device Global Memory": ("memory_mib", "whole"),
    "Application Compute Clock Rate": ("compute_clock_ghz", "number"),
    "Application Memory Clock Rate": ("memory_clock_ghz", "number"),
    "Precision": ("built_precision", "text"),
    "Inference Streams": ("streams", "whole"),
    "Data transfers": ("transfers", "switch"),
    "Spin-wait": ("spin_wait", "switch"),
    "CUDA Graph": ("cuda_graph", "switch"),
    "Throughput": ("throughput_qps", "number"),
    "Latency": ("latency", "statistic"),
    "Enqueue Time": ("enqueue", "statistic"),
    "H2D Latency": ("h2d", "statistic"),
    "GPU Compute Time": ("compute", "statistic"),
    "D2H Latency": ("d2h", "statistic"),
    "Total Host Walltime": ("walltime_s", "number"),
    "Created execution context with device memory size": ("context_mib", "number"),
    "Total Activation Memory": ("activation_bytes", "whole"),
    "Total Weights Memory": ("weights_bytes", "whole"),
    # The name depends on the release; no log has both.
    "Total Scratch Memory": ("scratch_bytes", "whole"),
    "Max Scratch Memory": ("scratch_bytes", "whole"),
    "Total Device Persistent Memory": ("persistent_bytes", "whole"),
    "Loaded engine size": ("loaded_mib", "number"),
    "Created engine with size": ("created_mib", "number"),
}
_UNSTABLE = "* GPU compute time is unstable"
_SENTENCES: dict[str, tuple[str, str]] = {
    r"\[MS\] Number of aux streams is (\d+)": ("aux_streams", "whole"),
    r"\[BlockAssignment\] Started assigning block shifts\. This will take (\d+) steps": ("steps", "whole"),
    r"Allocated (?:device scratch|activation device) memory of size (\d+)": ("allocated_bytes", "whole"),
    r"Engine generation completed in (\S+) seconds": ("build_s", "number"),
    r"Timing trace has (\d+) queries": ("queries", "whole"),
    r"Warmup completed \d+ queries over (\S+) ms": ("warmup_ms", "number"),
    rf"{re.escape(_UNSTABLE)}, with coefficient of variance = ([\d.]+)%": ("variance_percent", "number"),
}
# Lines that begin otherwise are not tried against the patterns: they are most of the 10 MB of a verbose log.
_FIRST_WORDS = (
    "[MS]",
    "[BlockAssignment]",
    "Engine",
    "Timing",
    "Warmup",
    "*",
    "Average",
    "Input",
    "Created",
    "Allocated",
    "The",
)
_PATTERNS = [(re.compile(pattern), *kind) for pattern, kind in _SENTENCES.items()]
# trtexec's own, "Engine built in 736.71 sec.", follows the builder's "Engine generation completed in 736.495 seconds."
_BUILT = re.compile(r"Engine built in (\S+) sec")
# "Average on 50 runs - GPU latency: 14.2504 ms - Host latency: 14.5621 ms (enqueue 0.00930084 ms)"
_AVERAGE = re.compile(r"Average on (\d+) runs - GPU latency: (\S+) ms - Host latency: (\S+) ms")
# "Input binding for images with dimensions 1x3x640x640 is created."; old releases say "Created input binding".
_BINDING = re.compile(r"(?:Input|Created input) binding for (.{1,200}) with dimensions (\d+(?:x\d+)*)")
# trtexec goes on without a graph, although its options above still say "CUDA Graph: Enabled".
_NO_GRAPH = re.compile(r"The (?:built TensorRT engine .* not permitted|specified --useCudaGraph flag has been ignored)")
_SUMMARY = "=== Performance summary ==="
# A warning of the parser where the FP16 flag is set: all that a log of the Python builder tells of its precision.
_FP16_FOUND = "Detected layernorm nodes in FP16"


def read_trtexec_logs(path: Path) -> tuple[TrtexecLog, ...]:
    """Return the runs of a log in order; a file that has several of them gives several.

    Raises:
        RecordError: when the file is missing, too large, no text, of another program, or contradicts itself.
    """
    file_size(path, RecordError, hint=HINT, limit=MOST_BYTES)
    runs = [_Run()]
    with contents_checked(path, RecordError, title="log", hint=HINT):
        for line in lines_of(path):
            begins = _RUN.search(line)
            is_new = runs[-1].is_begun if begins and begins[1] == "RUNNING" else runs[-1].is_over(line)
            if is_new and len(runs) == MOST_RUNS:
                raise ValueError(f"more than {MOST_RUNS} runs")
            if is_new:
                runs.append(_Run())
            runs[-1].take_mark(*begins.groups()) if begins else runs[-1].take(line)
        found = tuple(run.log() for run in runs)
    # Any text would do up to here, as unknown lines are skipped: a tegrastats log has none of the three.
    if not any(log.command or log.is_timed or log.is_build for log in found):
        raise RecordError(NO_LOG, where=path, hint=HINT)
    return found


def _number(text: str) -> float | None:
    """Return the number in front of a unit; ``None`` for anything else, NaN and infinity among it."""
    word = text.partition(" ")[0]
    # "70.2959 qps", "7619 MiB", "54824448 bytes": the unit is that of the key.
    value = float(word) if _NUMBER.fullmatch(word) else None
    return value if value is not None and value <= _MOST else None


def _whole(text: str) -> int | None:
    value = _number(text)
    return int(value) if value is not None and value == int(value) else None


def _text(text: str) -> str | None:
    return printable(text.strip())[:_LONGEST_TEXT] or None


def _statistic(text: str) -> LogStatistic | None:
    """Return a line of the summary, or ``None`` where a figure is missing or no number.

    Raises:
        ValueError: when its figures contradict each other.
    """
    plain: dict[str, float] = {}
    percentiles: dict[str, float] = {}
    for name, percent, figure in _PART.findall(text):
        value = _number(figure)
        if value is not None:
            (percentiles if percent else plain)[percent or name] = value
    # min, max, mean and median; a percentile may be missing, as --percentile chooses them.
    if len(plain) < 4:
        return None
    low, high = plain["min"], plain["max"]
    # An edited or torn line: medians of it would be compared with others'.
    if not all(low <= value <= high for value in (plain["mean"], plain["median"], *percentiles.values())):
        raise ValueError(f"figures beyond min and max: {printable(text)[:_LONGEST_TEXT]}")
    return LogStatistic(low, high, plain["mean"], plain["median"], percentiles)


_READ: dict[str, Callable[[str], object]] = {
    "text": _text,
    "whole": _whole,
    "number": _number,
    "statistic": _statistic,
    "switch": {"Enabled": True, "Disabled": False}.get,
    # "8.7" is SM 87.
    "capability": lambda text: _whole(text.replace(".", "", 1)),
}


class _Run:
    """Collects what the lines of one run say."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._averages: list[tuple[int, float, float]] = []
        # A dict and no set: in the order of the log, each once.
        self._warnings: dict[str, None] = {}

    @property
    def is_begun(self) -> bool:
        """Return whether another run begins behind it; warnings in front of the first line belong to that."""
        return bool({"command", "activation_bytes", "build_s", "compute"} & self._found.keys())

    def is_over(self, line: str) -> bool:
        """Return whether a line begins a second summary, as where somebody left the lines between runs out."""
        return "compute" in self._found and line.endswith(_SUMMARY)

    def take_mark(self, mark: str, release: str, command: str | None) -> None:
        """Take a line that begins or ends the run."""
        self._found["tensorrt"] = _release(release)
        # Never empty, since an empty command is what tells a log of the Python builder.
        self._found["command"] = printable(command or "trtexec")[:4096]
        if mark != "RUNNING":
            self._found["passed"] = mark == "PASSED"

    def take(self, line: str) -> None:
        """Take any other line."""
        level = _LEVEL.search(line)
        text = line[level.end() :] if level else line.strip()
        # A warning may be a figure as well: that on scatter is both.
        if level and level[1] in "WEF":
            self._take_message(level[1], text)
        key, colon, value = text.partition(": ")
        if colon and key in _KEYS:
            name, kind = _KEYS[key]
            self._set(name, kind, value)
        elif text.startswith(_FIRST_WORDS):
            self._take_sentence(text)

    def _set(self, name: str, kind: str, value: str) -> None:
        read = _READ[kind](value)
        # Verbose logs explain each figure below the summary, "Throughput: the observed throughput computed by ...".
        if read is not None:
            self._found[name] = read

    def _take_message(self, level: str, text: str) -> None:
        if text.startswith(_FP16_FOUND):
            # Of an engine in INT8 it is printed too, and then the options above have said more.
            self._found.setdefault("built_precision", "FP32+FP16")
        if level != "W":
            # The first one, because those behind it follow from it.
            self._found.setdefault("error", _text(text))
        # What begins with a space goes on with the line before; scatter is judged by the figure, not by the sentence.
        elif len(self._warnings) < MOST_WARNINGS and not text.startswith((" ", _UNSTABLE)):
            self._warnings[printable(text.strip())[:_LONGEST_TEXT]] = None

    def _take_sentence(self, text: str) -> None:
        for pattern, name, kind in _PATTERNS:
            if match := pattern.match(text):
                self._set(name, kind, match[1])
                return
        if match := _AVERAGE.match(text):
            self._take_average(_whole(match[1]), _number(match[2]), _number(match[3]))
        elif match := _BINDING.match(text):
            self._inputs[printable(match[1])] = _shape(match[2])
        # The builder's own figure goes first; trtexec's holds what it did around it.
        elif (match := _BUILT.match(text)) and "build_s" not in self._found:
            self._set("build_s", "number", match[1])
        elif _NO_GRAPH.match(text):
            self._found["cuda_graph"] = False

    def _take_average(self, queries: int | None, compute_ms: float | None, latency_ms: float | None) -> None:
        if queries and compute_ms is not None and latency_ms is not None:
            self._averages.append((queries, compute_ms, latency_ms))

    def log(self) -> TrtexecLog:
        """Return the run; options that trtexec did not print are those of its command."""
        flags = flags_of(self._found.get("command", ""))
        # A log of the Python builder has no command and runs nothing: its switches are unknown, not off.
        options: dict[str, Any] = {}
        if self._found.get("command"):
            options = {
                "cuda_graph": "useCudaGraph" in flags,
                "spin_wait": "useSpinWait" in flags,
                "transfers": "noDataTransfers" not in flags,
                # Old releases call the option --streams.
                "streams": _whole(flags.get("infStreams", flags.get("streams", "1"))),
            }
        return TrtexecLog(
            # What was printed goes before what was asked for: a CUDA graph can be refused.
            **{**options, **self._found},
            inputs=self._inputs or _shapes(flags.get("shapes", "")),
            averages=self._run_averages(),
            warnings=tuple(self._warnings),
        )

    def _run_averages(self) -> RunAverages | None:
        if not self._averages:
            return None
        queries = self._averages[0][0]
        alike = [(compute_ms, latency_ms) for number, compute_ms, latency_ms in self._averages if number == queries]
        return RunAverages(queries, tuple(compute for compute, _ in alike), tuple(latency for _, latency in alike))


def _release(text: str) -> str:
    """Return ``10.7.0`` for ``100700`` and ``8.6.1`` for ``8601``; newer programs print dots."""
    if "." in text:
        return text
    number = int(text)
    major, rest = divmod(number, 10_000 if number >= 10_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _shape(text: str) -> tuple[int, ...]:
    # Bounded, because nobody vouches for the text: TensorRT has at most 8 dimensions of 31 bits.
    return tuple(int(size[:9]) for size in text.split("x")[:16])


def _shapes(option: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of ``--shapes=name:1x3x224x224,name:...``."""
    # From the right, because names of tensors may hold colons: "onnx::Cast_0:1x3x224x224".
    pairs = (part.rpartition(":") for part in option.split(","))
    return {printable(name.strip("'\"")): _shape(shape) for name, _, shape in pairs if _SHAPE.fullmatch(shape)}
