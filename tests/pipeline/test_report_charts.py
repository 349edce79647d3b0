"""The report's charts: the same bytes for the same numbers, text as text, the page's colours."""

import re
from collections import Counter
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import report, traits
from pipeline.report import charts, shapes
from wit.pairs import SAMPLES

COUNTS = Counter({3: 10, 40: 500, 41: 20, 900: 4})
SVG = "{http://www.w3.org/2000/svg}"


def curve() -> report.Curve:
    counts = np.array([10**6, 30, 30, 1])
    return report.make_curve(counts, np.minimum(counts, 20), counts // 2)


def bars() -> report.Histogram:
    return shapes.over_octaves("Length of the text", "characters", COUNTS)


def drawn() -> list[str]:
    return [charts.draw_curve(curve(), 20, 700, 300), charts.draw_bars(bars(), 350, 190)]


def test_a_chart_is_the_same_whatever_matplotlib_is_set_to() -> None:
    before = drawn()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert drawn() == before


@pytest.mark.parametrize("chart", drawn())
def test_a_chart_has_a_title_a_description_and_the_style_sheet_s_colours(chart: str) -> None:
    root = ElementTree.fromstring(chart)
    assert root.get("role") == "img"
    assert [child.tag for child in root[:2]] == [f"{SVG}title", f"{SVG}desc"]
    assert all(child.text for child in root[:2])
    assert "var(--accent)" in chart
    assert not re.search(r"#[0-9a-f]{6}\b", chart)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(f"#{name}" in chart for name in ids)
    assert not [element for element in root.iter() if element.tag == f"{SVG}style"]


def test_the_words_of_a_chart_are_text() -> None:
    said = ["".join(t.itertext()) for t in ElementTree.fromstring(drawn()[0]).iter(f"{SVG}text")]
    assert {"cap 20", "1", "10", "100", "1k", "10k", "100k", "1M"} <= set(said)
    said = ["".join(t.itertext()) for t in ElementTree.fromstring(drawn()[1]).iter(f"{SVG}text")]
    assert {"median 40", "0", "500", "4", "64"} <= set(said)


@given(st.integers(1, 10**13))
def test_an_axis_has_a_few_round_numbers_from_zero(most: int) -> None:
    steps = charts.round_steps(most)
    assert steps[0] == 0
    assert 2 <= len(steps) <= 6
    assert steps[-1] <= most
    assert steps[-1] >= most / 2


@given(st.dictionaries(st.integers(1, traits.MOST), st.integers(1, 10**9), min_size=1))
def test_bars_hold_every_pair_once_and_their_labels_say_which(counts: dict[int, int]) -> None:
    histogram = shapes.over_octaves("", "", Counter(counts))
    assert sum(count for _, count in histogram.bars) == sum(counts.values())
    for label, count in histogram.bars:
        numbers = [int(n) for n in re.findall(r"\d+", label.replace(",", ""))]
        low, high = numbers[0], traits.MOST if "more" in label else numbers[-1]
        assert count == sum(n for value, n in counts.items() if low <= value <= high)


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_quantile_is_the_value_at_its_place(values: list[int], share: float) -> None:
    place = max(0, int(np.ceil(share * len(values))) - 1)
    assert traits.quantile(Counter(values), share) == sorted(values)[place]


def rows(**columns: list) -> pa.Table:
    count = len(columns["outcome"])
    nothing = {field.name: pa.nulls(count, field.type) for field in SAMPLES}
    return pa.table(nothing | columns).cast(SAMPLES)


def test_only_stored_pairs_are_counted_and_strange_types_are_others() -> None:
    table = rows(
        outcome=["success"] * 4 + ["not_found"],
        caption=["red", "naïve 服", "a", "b" * 9000, "no"],
        content_type=["image/PNG ; q=1", None, "image/x-evil", "", "image/png"],
        width=[256, 256, 256, 256, None],
        height=[256, 128, 512, 256, None],
        original_width=[1000, 600, None, 256, None],
        original_height=[1000, 300, None, 256, None],
        attribute=["alt", "alt", "title", None, "alt"],
    )
    counted = traits.from_json(traits.to_json(traits.count_traits(table)))
    assert counted["content_type"] == {"image/png": 1, "unknown": 2, "other": 1}
    assert counted["text_length"] == {3: 1, 7: 1, 1: 1, traits.MOST: 1}
    assert counted["shorter_side"] == {1000: 1, 300: 1, 256: 2}
    assert counted["ratio"] == {0: 2, 8: 1, -8: 1}
    assert counted["shape"] == {"square": 2, "landscape": 1, "portrait": 1}
    assert counted["attribute"] == {"alt": 2, "title": 1, "unknown": 1}
    assert traits.add_traits([counted, counted])["ratio"] == {0: 4, 8: 2, -8: 2}
