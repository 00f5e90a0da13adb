"""One word for one thing: in names, in messages, and in the table of docs/VOCABULARY.md."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import fine_edge

PACKAGE = Path(fine_edge.__file__).parent
ROOT = Path(__file__).parent.parent
# Words that have another in the field: hint, slowest, more often, because.
RETIRED = re.compile(r"\b(mends?|dearest|oftener|for want of)\b", re.IGNORECASE)


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
    assert len(places) > 100


def test_no_two_test_files_share_a_name():
    """Pytest imports them by name alone, and collects none of two."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_retired_words_do_not_come_back():
    files = [*PACKAGE.rglob("*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "bench" / "METHOD.md"]
    found = {str(path): RETIRED.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {path: words for path, words in found.items() if words} == {}


def test_every_word_of_the_table_is_used():
    table = (ROOT / "docs" / "VOCABULARY.md").read_text(encoding="utf-8")
    words = [
        word.strip() for line in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[2:] for word in line.split(",")
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert len(words) > 20
    assert [word for word in words if not re.search(rf"\b{re.escape(word)}s?\b", text, re.IGNORECASE)] == []
