from runners.fixtures import device  # noqa: F401 - a fixture
