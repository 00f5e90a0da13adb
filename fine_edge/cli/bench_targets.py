"""``fine-edge bench TARGET...``: what was named, as files that can be measured."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.bench.backends import BenchOptions
from fine_edge.bench.named import labels
from fine_edge.cli.target import Target
from fine_edge.errors import ConfigError


@dataclass(frozen=True)
class NamedTargets:
    """What was named on the command line, in order."""

    targets: tuple[Target, ...]

    @classmethod
    def parse(cls, given: argparse.Namespace) -> NamedTargets:
        """Read the targets, and refuse options that have no effect on them.

        Raises:
            ConfigError: for an option of suites or of models alone, or an engine where ONNX Runtime is asked for.
            UnknownModelError: when one is neither a file nor a model.
        """
        targets = tuple(Target.parse(text) for text in given.targets)
        of_suites = {"--suite": given.suite is not None, "--only": bool(given.only), "--rtx": given.rtx}
        of_models = {"--precision": given.precision is not None, "--frame": given.frame is not None}
        unused = of_suites if any(target.model for target in targets) else of_suites | of_models
        for option, is_given in unused.items():
            if is_given:
                what = "is of a suite" if option in of_suites else "is of a MODEL; a file has its own"
                raise ConfigError(what, where=option, hint="leave it out")
        engine = next((target.engine for target in targets if target.engine), None)
        if engine and given.backend not in (None, "trt"):
            raise ConfigError("an engine runs in TensorRT", where=engine, hint="--backend trt, or its ONNX file")
        if given.picture and len(targets) < 2:
            raise ConfigError("the picture compares targets, and one is named", where="--picture", hint="name two")
        return cls(targets)

    @property
    def backend(self) -> str:
        """The backend that runs them unless another is asked for."""
        return "trt" if any(target.engine for target in self.targets) else "ort"

    def files(self, options: BenchOptions) -> tuple[list[Path], list[str]]:
        """Return the files and what tables call them; those of models are exported unless they are there.

        Raises:
            ConfigError: when something is named twice.
            ArtifactError: when a model cannot be exported.
        """
        height, width = options.input_hw
        asked: dict[str, Any] = {"precision": options.onnx_precision, "frame": options.frame}
        asked |= {"height": height, "width": width}
        paths = [target.engine or target.onnx_path(options.folder, **asked) for target in self.targets]
        named = labels(paths)
        return paths, [target.model or name for target, name in zip(self.targets, named, strict=True)]
