"""The images without a Docker engine: what their files name must exist, and the README must say what they say."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fine_edge.contract import TENSORRT
from fine_edge.doctor import software
from fine_edge.engine import platform
from fine_edge.jetson import board, power_modes

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
README = (DOCKER / "README.md").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

every_image = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
jetson_images = pytest.mark.parametrize("path", [path for path in FILES if "jetson" in path.name], ids=lambda p: p.name)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, comments dropped and continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def arguments(path: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(path) if instruction == name]


def defaults(path: Path) -> dict[str, str]:
    """ARGs with their defaults."""
    return dict(rest.split("=", 1) for rest in arguments(path, "ARG"))


def extras() -> dict[str, str]:
    """Optional dependencies by name; by pattern, since Python 3.10 reads no TOML."""
    section = PYPROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return dict(re.findall(r"^(\w+) = \[\n(.*?)^\]", section, re.MULTILINE | re.DOTALL))


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the repository from the builder; the last pattern that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if pattern and not pattern.startswith("#") and (fnmatch(path, pattern) or fnmatch(path, f"{pattern}/*")):
            verdict = not line.startswith("!")
    return verdict


def table() -> dict[str, list[str]]:
    """Rows of the README's first table by image, code marks dropped."""
    rows = re.findall(r"^\| `(Dockerfile\.[\w-]+)` \|(.*)\|$", README, re.MULTILINE)
    return {name: [cell.strip().replace("`", "") for cell in cells.split("|")] for name, cells in rows}


def test_there_are_four_images():
    assert [path.name.removeprefix("Dockerfile.") for path in FILES] == [
        "host",
        "jetson-igpu",
        "jetson-jp72",
        "jetson-l4t",
    ]
    assert set(table()) == {path.name for path in FILES}


@every_image
def test_the_base_is_pinned_and_can_be_replaced_and_its_stage_is_named(path):
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", defaults(path)["BASE_IMAGE"])
    stages = arguments(path, "FROM")
    assert [stage.split()[0] for stage in stages] == ["${BASE_IMAGE}"]
    assert all(re.fullmatch(r"\S+ AS [a-z]+", stage) for stage in stages)


@every_image
def test_everything_that_is_copied_exists_and_reaches_the_builder(path):
    copied = [word for rest in arguments(path, "COPY") for word in rest.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "fine_edge"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        inside = f"{source}/rtdetr_r18.json" if source == "engines" else source
        assert not ignored(inside), source


def test_what_the_build_of_the_package_reads_is_copied():
    """pyproject.toml names the readme and the licence; without them pip fails inside the image."""
    assert 'readme = "README.md"' in PYPROJECT
    assert 'license-files = ["LICENSE"]' in PYPROJECT


@pytest.mark.parametrize(
    "path", ["tests/conftest.py", ".venv/bin/python", "engines/a.engine", "engines/a.fp16.engine.json"]
)
def test_nothing_else_reaches_the_builder(path):
    assert ignored(path)


@pytest.mark.parametrize(
    "path", ["fine_edge/doctor/software.py", "engines/rtdetr_r18.json", "docker/TensorRT-1.tar.gz"]
)
def test_what_an_image_needs_reaches_the_builder(path):
    assert not ignored(path)


@every_image
def test_extras_exist(path):
    named = re.findall(r"\.\[([\w,]+)\]", " ".join(arguments(path, "RUN")))
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(extras())


@every_image
def test_it_ends_in_a_command_that_proves_itself(path):
    name, rest = instructions(path)[-1]
    assert name == "CMD"
    assert re.fullmatch(r'\["python3?", "-m", "fine_edge", "doctor"\]', rest)


@every_image
def test_the_readme_says_which_base(path):
    assert table()[path.name][0] == defaults(path)["BASE_IMAGE"]


@every_image
def test_the_readme_says_which_python(path):
    python = table()[path.name][4]
    assert 'requires-python = ">=3.10,<3.14"' in PYPROJECT
    assert 10 <= int(python.split(".")[1]) < 14
    text = path.read_text(encoding="utf-8")
    assert f"Python {python}" in text or f"python:{python}-" in text


@jetson_images
def test_the_readme_says_which_tensorrt_and_polygraphy(path):
    cells = table()[path.name]
    newer = defaults(path).get("TENSORRT_VERSION")
    assert cells[3].startswith(f"{newer.partition('-')[0]}," if newer else f"{TENSORRT}.")
    assert f"polygraphy=={cells[5]}" in extras()["device"]
    # What the tests run the path of a Jetson with.
    assert f"polygraphy=={cells[5]}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_archive_is_the_version_of_the_table_for_this_cuda():
    archive = defaults(DOCKER / "Dockerfile.jetson-l4t")["TENSORRT_ARCHIVE"]
    cells = table()["Dockerfile.jetson-l4t"]
    assert archive == f"TensorRT-{cells[3].split(',')[0]}.l4t.aarch64-gnu.cuda-{cells[2]}.tar.gz"
    assert archive in README
    assert fnmatch(f"docker/{archive}", "docker/*.tar.gz")


def test_the_image_of_jetpack_7_2_is_what_the_doctor_says_of_it():
    path, cells = DOCKER / "Dockerfile.jetson-jp72", table()["Dockerfile.jetson-jp72"]
    jetpack = next(jetpack for jetpack in software.JETPACKS if jetpack.name == "7.2")
    assert path.name in jetpack.get_tensorrt
    assert cells[1] == ".".join(map(str, jetpack.l4t))
    assert (cells[2], cells[4]) == (jetpack.cuda, jetpack.python)
    version = defaults(path)["TENSORRT_VERSION"]
    assert version.startswith(f"{jetpack.tensorrt}.")
    assert version.endswith(f"+cuda{cells[2]}")
    assert f"cuda:{cells[2]}." in cells[0]
    assert platform.runs_on_orin(jetpack.tensorrt, jetpack.cuda)
    run = " ".join(arguments(path, "RUN"))
    assert f"r{cells[1]} main" in run
    # The module is the system's, so the environment must see the system's packages.
    assert "python3-libnvinfer=" in run
    assert "--system-site-packages" in run


def test_the_hosts_row():
    cells = table()["Dockerfile.host"]
    rtx = extras()["rtx"]
    assert f"tensorrt-rtx-cu12>={re.search(r'RTX ([0-9.]+)', cells[3])[1]}" in rtx
    assert f"polygraphy>={cells[5].split()[0]}" in rtx


@jetson_images
def test_make_finds_the_images_environment(path):
    """The Makefile takes an environment whose marker is there, by VENV and EXTRAS."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "VENV   ?=" in makefile
    assert "EXTRAS ?=" in makefile
    assert "$(VENV)/.installed-$(EXTRAS)" in makefile
    environment = " ".join(arguments(path, "ENV"))
    assert "VENV=/opt/venv" in environment
    assert "EXTRAS=device" in environment
    assert "touch /opt/venv/.installed-device" in " ".join(arguments(path, "RUN"))


def test_commands_of_the_readme_name_images_that_are_here():
    built = re.findall(r"docker build -f (\S+) -t (fine_edge:\S+) \.", README)
    assert {name for name, _ in built} == {f"docker/{path.name}" for path in FILES}
    run = set(re.findall(r"^ *(?:docker run .*)?(fine_edge:[\w-]+)", README, re.MULTILINE))
    assert run <= {tag for _, tag in built}
    assert run


def test_the_mounts_are_what_the_board_is_read_from():
    mounts = dict(re.findall(r"-v (/[^:\s]+):(/[^:\s]+):ro", README))
    assert mounts["/proc/device-tree/model"].removeprefix("/") in board._MODELS
    assert all(inside == outside for outside, inside in mounts.items() if outside != "/proc/device-tree/model")
    source = Path(board.__file__).read_text() + Path(power_modes.__file__).read_text()
    for path in ("etc/nv_tegra_release", "etc/nvpmodel.conf", "var/lib/nvpmodel", "sys/kernel/debug"):
        assert f"/{path}" in mounts
        assert f'"{path}' in source
