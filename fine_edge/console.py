"""The consoles: tables on standard output, progress, remarks and warnings on standard error.

Standard output carries only results, so that ``--json`` can be piped. Names come from untrusted files, so the consoles
escape every character that a terminal would act on.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn, cast

from rich.console import (
    Console,
    ConsoleDimensions,
    ConsoleOptions,
    ConsoleRenderable,
    RenderHook,
    RenderResult,
)
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from fine_edge.text import printable

# Of what is not printed on a terminal.
WIDTH = 100


class _Printable:
    """A renderable whose text is made printable; rich's own control segments stay."""

    def __init__(self, rendered: ConsoleRenderable) -> None:
        self._rendered = rendered

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._rendered, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


class _MakePrintable(RenderHook):
    """A hook that makes everything printable that a console prints."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(rendered) for rendered in renderables]


class _Console(Console):
    """A console that prints no foreign escapes and raises when its reader has closed the stream."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.push_render_hook(_MakePrintable())

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; 100 columns where there is neither a terminal nor ``COLUMNS`` to say how many."""
        found = super().size
        known = self.is_terminal or self._width is not None
        return found if known else ConsoleDimensions(WIDTH, found.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new

    @property
    def file(self) -> IO[str]:
        """The stream that rich writes to, without the wrapper that escapes text and without that of a running bar."""
        found = super().file
        return cast(IO[str], getattr(found, "rich_proxied_file", found))

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def on_broken_pipe(self) -> NoReturn:
        # rich would end the process with code 1; fine_edge.command ends it with 141.
        raise BrokenPipeError


class _Description(ProgressColumn):
    """The title of a progress bar, printable and without markup; the console's hooks do not reach bars."""

    def render(self, task: Task) -> Text:
        return Text(printable(task.description))


out = _Console()
err = _Console(stderr=True)


def json_text(data: Any) -> str:
    """Return data as one JSON document; NaN and infinities become null, because JSON has no form for them."""
    return json.dumps(_finite(data), indent=1, allow_nan=False) + "\n"


def print_lines(text: str) -> None:
    """Print lines on standard output, each wrapped between words; what follows stands two characters further in."""
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(line, out.width, subsequent_indent=indent, break_on_hyphens=False) or [""]
        out.print("\n".join(wrapped), highlight=False, markup=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json_text(data))


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def remark(text: str) -> None:
    """Print a remark that is not part of the result on standard error."""
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    err.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show a progress bar on standard error, if that is a terminal."""
    columns = (
        _Description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar


@contextlib.contextmanager
def live_line() -> Iterator[Callable[[str], None]]:
    """Give a function that replaces the one line it shows on standard error; silent where that is no terminal."""
    if not err.is_terminal:
        yield lambda _text: None
        return
    with err.status("") as shown:
        yield lambda text: shown.update(Text(printable(text)))


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner on standard error, if that is a terminal, during work of unknown length."""
    if err.is_terminal:
        with err.status(Text(printable(text))):
            yield
    else:
        yield
