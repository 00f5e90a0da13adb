"""Errors that the user can correct; each prints as one line with place, problem and hint.

    FineEdgeError              exit code 2
    ├── ConfigError            a configuration that cannot exist (also a ValueError)
    │   └── ForeignModelError  a model that FINE has no place in (also a TypeError)
    ├── UnknownModelError      a name that is not in the zoo
    ├── WeightsError           a checkpoint that does not fit, or cannot be read safely
    ├── ArtifactError          an ONNX file, contract or golden file that is missing, broken or foreign
    ├── ImageError             an image that cannot be read
    ├── DataError              a labelled data set or results on one that cannot be read, or do not fit the model
    ├── OutputError            a folder or file that cannot be written
    ├── RecordError            a benchmark record that cannot be read or compared
    ├── BoardError             a board that cannot be reached or is none, or a file about one that cannot be read
    ├── BackendError           a backend that refuses the model or is not on this machine
    └── MissingExtraError      an optional dependency that is not installed

Any other exception is a bug of fine-edge and keeps its traceback.
"""

from __future__ import annotations

from fine_edge.text import printable

# The hint where an ONNX file was named and none is there: of somebody's own file, its name is wrong.
NO_ONNX = "check the name; for a model of `fine-edge zoo`: python -m fine_edge export MODEL"


class FineEdgeError(Exception):
    """The base of all errors with a hint. ``str()`` returns the line that a command prints.

    Args:
        what: the problem.
        where: the file, option or node that has it.
        hint: what the user can do.
    """

    def __init__(self, what: str, *, where: object = None, hint: str = "") -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" -> {self.hint}" if self.hint else ""
        # Messages of libraries may hold line breaks and control characters.
        return printable(" ".join(f"{place}{self.what}{hint}".split()))


class ConfigError(FineEdgeError, ValueError):
    """A configuration that is not possible."""


class ForeignModelError(ConfigError, TypeError):
    """A model in which fine-edge knows no place for FINE."""


class UnknownModelError(FineEdgeError):
    """A name that is not in the zoo."""


class WeightsError(FineEdgeError):
    """A checkpoint that does not fit the model, or cannot be read safely."""


class ArtifactError(FineEdgeError):
    """An ONNX file, contract or golden file that is missing, broken or foreign."""


class ImageError(FineEdgeError):
    """An image that cannot be read."""


class DataError(FineEdgeError):
    """A labelled data set, or results on one, that cannot be read or do not fit the model."""


class OutputError(FineEdgeError):
    """A folder or file that cannot be written."""


class RecordError(FineEdgeError):
    """A benchmark record that cannot be read or compared."""


class BoardError(FineEdgeError):
    """A board that cannot be reached or is none, or a file about one that cannot be read."""


class BackendError(FineEdgeError):
    """A backend that refuses the model or is not on this machine."""


class MissingExtraError(FineEdgeError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}", hint=f"pip install 'fine-edge[{extra}]'")
