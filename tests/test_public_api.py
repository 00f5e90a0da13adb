import re

import fine_edge
import fine_edge.fusion


def test_version_is_semantic():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fine_edge.__version__)


def test_what_the_package_promises():
    assert fine_edge.fusion.__all__ == ["Fine", "FineConfig"]
    assert all(hasattr(fine_edge.fusion, name) for name in fine_edge.fusion.__all__)
    public = {
        name for name, value in vars(fine_edge).items() if not name.startswith("_") and not hasattr(value, "__path__")
    }
    modules = {name for name in public if type(getattr(fine_edge, name)).__name__ == "module"}
    assert public == modules, "fine_edge itself holds the version and nothing else"
