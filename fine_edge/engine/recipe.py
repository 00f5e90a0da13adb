"""Recipes: how each model's engine is built, one JSON file a model in ``engines/``.

JSON, because a Jetson's Python 3.10 reads no TOML. Options on the command line win over the recipe.
"""

from __future__ import annotations

import os
from pathlib import Path

from fine_edge import contract_fields as fields
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ConfigError, FineEdgeError
from fine_edge.files import read_json
from fine_edge.text import is_plain_name

_MEND = 'it needs {"model": NAME, "build": {...}}; without the file the defaults are used'


def recipe_path(model: str, folder: Path) -> Path:
    """``engines/MODEL.json``."""
    return folder / f"{model}.json"


def read_recipe(model: str, folder: Path) -> BuildOptions:
    """The model's build options; the defaults where it has no recipe.

    Raises:
        ConfigError: when the file is broken or is another model's.
    """
    path = recipe_path(model, folder)
    if not is_plain_name(model) or not os.path.lexists(path):
        return BuildOptions()
    data = read_json(path, ConfigError, mend=_MEND)
    try:
        if data["model"] != model:
            raise ConfigError(f"this is the recipe of {data['model']!r}", mend=_MEND)
        return BuildOptions.from_json(fields.mapping(data["build"], "build"))
    except FineEdgeError as error:
        raise ConfigError(error.what, where=path, mend=error.mend or _MEND) from error
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"the recipe is broken ({type(error).__name__}: {error})", where=path, mend=_MEND) from error
