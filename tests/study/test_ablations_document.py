"""The figures of the ablations in the blood cells' README are those of the record beside it."""

from pathlib import Path

from fine_edge.study.outcome import read_record
from fine_edge.study.tables import paired_table, study_table

FOLDER = Path(__file__).parents[2] / "examples" / "blood_cells"


def test_the_tables_are_those_of_the_record():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    found = read_record(FOLDER / "ablation.json")
    for variant, seeds, *_, ap, ap50, ap_s, _, _ in study_table(found).rows:
        assert seeds == "3 of 3"
        assert f"| {variant} | 3 | {ap} | {ap50} | {ap_s} |" in text
    for *start, n, mean, interval, paper, where in paired_table(found).rows:
        assert n == "3"
        assert (
            f"| {' | '.join(start)} | {mean} | {interval} | {paper if paper == '-' else f'{paper} ({where})'} |" in text
        )
