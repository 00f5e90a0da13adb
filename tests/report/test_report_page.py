import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fine_edge.bench.table import to_table
from fine_edge.graph.parts import Part
from fine_edge.layers.layer import LayerProfile, LayerTime
from fine_edge.report.bench_page import in_parts, panels, snapshots_of, to_html
from fine_edge.report.markdown import files_table, machine_facts

VOID = {"meta", "link", "br", "use", "path", "rect", "circle", "line", "hr", "img"}


class Page(HTMLParser):
    """Collects ids, references and text, and insists that elements are closed in order."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.references, self.text, self.open = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def profile():
    layers = (
        LayerTime("conv", "gemm", ("/backbone/Conv",), Part("backbone"), 3.0, 75.0, 2**20, 2**20),
        LayerTime("mha", "kgen", ("/fine.0/attention/Softmax",), Part("fine", "attention"), 1.0, 25.0, 2**20, 0),
    )
    return LayerProfile("tiny engine", layers)


def test_the_page_is_whole_and_needs_nothing_else(cpu_record, device_record, profile):
    html = to_html([cpu_record, device_record], [(profile, None)])
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert not re.search(r"<script|<link|@import|src=", html)
    assert html.count("<svg") == 2 + 3 + 1
    assert "#010203" not in html  # pictures have the page's colour
    assert html.count("currentColor") > 20


def test_tables_stamps_reasons_and_hashes_are_there_and_escaped(device_record):
    html = to_html([device_record])
    assert html == to_html([device_record])
    text = " ".join(Page(html).text)
    assert "THROTTLED" in text
    assert "hot <b>GPU</b>" in text
    assert "<b>" not in html
    onnx = device_record.rows[0].artifact_sha256[:16]
    for words in ("Models and engines", "Beside the paper", "cdcdcdcdcdcdcdcd", onnx, "TensorRT 10.7.0"):
        assert words in text


def test_estimates_stand_apart_and_marked(cpu_record, device_record):
    estimate = replace(device_record, estimate=True, title="Guess")
    html = to_html([estimate, cpu_record])
    measured, _, guessed = html.partition('<section id="s1" class=estimate>')
    assert cpu_record.title in measured
    assert '<span class="mark note">ESTIMATE</span>' in guessed
    assert cpu_record.title not in guessed
    assert "nothing trimmed" not in guessed
    assert html.count("<h2>Guess</h2>") == 1


def test_pairs_stand_beside_the_papers_throughput_ratio(pairs_record):
    first, beside = (table for _, table in in_parts(to_table(pairs_record)))
    assert [column.full_title for column in beside.columns][:5] == [
        "Model",
        "FPS",
        "FPS paper (Orin Nano)",
        "FPS ratio",
        "FPS ratio paper (Orin Nano)",
    ]
    assert beside.rows[3][4] == "1.013"  # 78 / 77
    assert [column.title for column in first.columns][:3] == ["Model", "#Params (M)", "FLOPs (G)"]
    text = " ".join(Page(to_html([pairs_record])).text)
    for words in ("Beside the paper", "Groups are measured one after the other", "700 MiB (rtdetr_r18)", "AP50"):
        assert words in text


def test_a_quick_look_says_so(cpu_record):
    assert "QUICK LOOK</span>" in to_html([replace(cpu_record, quick=True)])


def test_what_fine_costs_is_shown_with_a_baseline(cpu_record, profile):
    base = replace(profile, layers=profile.layers[:1], source="engine without")
    html = to_html([cpu_record], [(profile, base)])
    assert "What FINE costs" in html
    assert "FINE&#x27;s own kernels: +1 kernels, +1.000 ms" in html


def test_states_shared_by_rows_count_once_and_clocks_stay_apart_from_power(device_record):
    states = snapshots_of(device_record)
    assert [state.at_s for state in states] == [0.0, 2.0, 4.0, 6.0, 8.0]
    shown = panels(states)
    assert list(shown) == ["MHz", "degrees C", "W"]
    assert shown["W"]["VDD_IN"][-1] == (8.0, 14.0)
    assert "memory" not in shown["MHz"]
    assert panels([]) == {}


def test_provenance_names_machine_and_files(device_record):
    facts = dict(machine_facts(device_record))
    assert facts["device"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["platform"] == "tensorrt 10.7.0, l4t 36.4.0, gpu Orin, sm 87"
    assert "threads" not in facts
    onnx = device_record.rows[0].artifact_sha256[:16]
    assert files_table(device_record).rows[0] == ["rtdetr_r18", "fp16", "random", onnx, "cd" * 8]
