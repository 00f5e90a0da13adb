import pytest
from cells import write_cells


@pytest.fixture(scope="session")
def cells(tmp_path_factory):
    """See :mod:`cells`."""
    return write_cells(tmp_path_factory.mktemp("data") / "cells")
