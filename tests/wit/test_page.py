"""How the pages of all rooms say numbers, and that they escape what strangers wrote."""

import pytest

from wit import page


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (754, "12 min 34 s"),
        (11_100, "3 h 05 min"),
    ],
)
def test_durations_are_said_as_people_say_them(value: float, said: str) -> None:
    assert page.seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 KB"),
        (20_345_000, "20 MB"),
        (10**19, "10,000 PB"),
    ],
)
def test_sizes_are_said_as_people_say_them(value: float, said: str) -> None:
    assert page.size(value) == said


@pytest.mark.parametrize(
    ("count", "whole", "said"),
    [(0, 0, "–"), (0, 9, "0 %"), (1, 10**6, "< 0.1 %"), (1, 3, "33 %"), (1, 30, "3.3 %")],
)
def test_shares_stay_visible(count: int, whole: int, said: str) -> None:
    assert page.part(count, whole) == said


def test_a_long_text_keeps_its_ends() -> None:
    assert page.short("a\n b") == "a b"
    assert page.short("start " + "x" * 500 + " end").startswith("start xxx")
    assert page.short("start " + "x" * 500 + " end").endswith("xxx end")
    assert len(page.short("x" * 10_000)) < page.LONGEST


def test_a_template_escapes_and_is_framed_by_the_shared_page(tmp_path) -> None:
    (tmp_path / "own.html").write_text(
        '{% extends "page.html" %}{% block title %}{{ name }}{% endblock %}'
        "{% block page %}<p>{{ name | short }}</p>{% endblock %}"
    )
    environment = page.make_environment(tmp_path)
    text = environment.get_template("own.html").render(name="<script>alert(1)</script>")
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "--ground" in text
