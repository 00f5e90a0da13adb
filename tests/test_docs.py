"""What the documents tell a reader to type exists: targets, modules, options and linked files."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from fine_edge.cli import program

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/ANALYSES.md",
        "docs/COMMANDS.md",
        "docs/EVIDENCE.md",
        "docs/FIGURES.md",
        "docs/PAPER_AND_LOGS.md",
        "docs/VOCABULARY.md",
        "bench/METHOD.md",
        "bench/PREDICTOR.md",
        "docker/README.md",
        "engines/README.md",
        "plugins/README.md",
        "plugins/fine_modulate/README.md",
    )
]

EVIDENCE = ROOT / "docs" / "EVIDENCE.md"

_CODE = re.compile(r"^```[^\n]*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_MAKE = re.compile(r"(?:^|[\s;&$(])make((?:[ \t]+(?:-[A-Za-z]\b|[A-Z_]+=\S+))*)[ \t]+([a-z][a-z-]*)")
_COMMAND = re.compile(r"(?:python3? -m fine_edge[ .]|fine-edge )([a-z][a-z-]*)([^\n;&|#]*)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def code(document: Path) -> str:
    """Everything in code spans and blocks, continued lines joined."""
    found = (block or span for block, span in _CODE.findall(document.read_text(encoding="utf-8")))
    return "\n".join(found).replace("\\\n", " ")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def help_of(*command: str) -> str:
    """``--help`` of a command of the program, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        program.main([*command, "--help"])
    assert ended.value.code == 0
    return out.getvalue()


def known_options(command: str, arguments: list[str]) -> set[str]:
    """Options that a command line may hold: those of the command and of its subcommand, if it names one."""
    behind = next((place for place, word in enumerate(arguments) if word in program.COMMANDS), None)
    if command == "board" and behind is not None:  # HOST COMMAND ...
        return known_options(command, []) | known_options(arguments[behind], arguments[behind + 1 :])
    text = help_of(command)
    # Choices of an option stand in braces as well: only those of the first positional argument are commands.
    positional = re.search(r"positional arguments:\n  \{([\w,-]+)\}", text)
    subcommands = positional[1].split(",") if positional else []
    # Where one command is the rule, the others are named below its options.
    subcommands += re.findall(
        r"(?:Also:|, ) ?([a-z]+) [A-Z]", text.partition("\nAlso:")[1] + text.partition("\nAlso:")[2]
    )
    if arguments and arguments[0] in subcommands:
        text += help_of(command, arguments[0])
    return set(re.findall(r"--[a-z][a-z-]*", text))


def commands() -> list[tuple[str, str, str]]:
    return sorted(
        {(path.name, command, rest.strip()) for path in DOCUMENTS for command, rest in _COMMAND.findall(code(path))}
    )


def test_there_are_documents_with_commands():
    assert DOCUMENTS
    assert commands()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_exists(document):
    named = {target for _, target in _MAKE.findall(code(document))}
    assert named - make_targets() == set()


@pytest.mark.parametrize(("document", "command", "rest"), commands())
def test_every_command_exists_with_its_options(document, command, rest):
    assert command in program.COMMANDS, f"{document} names {command}"
    arguments = rest.split()
    options = {word.split("=")[0].strip("[],.:()") for word in arguments if word.lstrip("[(").startswith("--")}
    options = {option for option in options if re.fullmatch(r"--[a-z][a-z-]*", option)}
    assert options - known_options(command, arguments) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document):
    links = [link for link in _LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    files = [link.split("#")[0] for link in links if not link.startswith(("#", "mailto:"))]
    assert [link for link in files if not (document.parent / link).exists()] == []


def test_the_reader_of_documents_sees_commands(tmp_path):
    """The patterns above, on lines as documents have them."""
    text = (
        "Run `make -B engine MODEL=x` or\n```sh\npython -m fine_edge graph check F \\\n  --json\nmake X=1 test\n```\n"
    )
    (tmp_path / "d.md").write_text(text + "make sure that prose is not read", encoding="utf-8")
    found = code(tmp_path / "d.md")
    assert [target for _, target in _MAKE.findall(found)] == ["engine", "test"]
    assert [(command, rest.split()) for command, rest in _COMMAND.findall(found)] == [
        ("graph", ["check", "F", "--json"])
    ]


def evidence() -> list[tuple[str, dict[str, str]]]:
    """The table "What has been run where": what, and its cells by column."""
    section = EVIDENCE.read_text(encoding="utf-8").split("\n## What has been run where")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    header, _, *body = rows
    return [(cells[0], dict(zip(header[1:], cells[1:], strict=True))) for cells in body]


def is_record(path: Path) -> bool:
    """Of a measurement, or of the matrix: both say on what machine and with what libraries they were made."""
    return path.suffix == ".json" and {"machine", "rows"} <= json.loads(path.read_text(encoding="utf-8")).keys()


def test_every_claim_of_what_was_run_names_what_stands_behind_it():
    rows = evidence()
    assert len(rows) > 8
    for what, cells in rows:
        for column, cell in cells.items():
            proofs = [(EVIDENCE.parent / link).resolve() for link in _LINK.findall(cell)]
            assert proofs or cell in ("-", "never", "not measured yet"), f"{what}, {column}: {cell}"
            assert all(proof.is_file() for proof in proofs), f"{what}, {column}: {cell}"
            assert all(is_record(proof) or proof.name.startswith("test_") for proof in proofs)


def test_nothing_is_claimed_of_a_jetson_without_a_record_from_one():
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "bench/results").glob("*.json")]
    from_a_jetson = [record for record in records if "Orin" in str(record["machine"].get("gpu"))]
    for what, cells in evidence():
        cell = cells["Jetson Orin Nano"]
        assert from_a_jetson or "never" in cell or cell == "-", f"{what}: {cell}"
    assert from_a_jetson or cells["TensorRT 10.7"] == "never"


def test_what_ran_in_nvidias_compiler_is_tested_with_it():
    for what, cells in evidence():
        for link in _LINK.findall(next(cell for column, cell in cells.items() if "TensorRT-RTX" in column)):
            proof = EVIDENCE.parent / link
            text = proof.read_text(encoding="utf-8")
            if is_record(proof):
                assert "tensorrt-rtx-cu12" in json.loads(text)["libraries"], f"{what}: {link}"
            else:
                assert "mark.host" in text, f"{what}: {link} would pass without the compiler"
