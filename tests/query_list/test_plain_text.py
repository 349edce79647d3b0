"""Wikitext becomes what a reader sees as running text, in time linear in its length."""

import html
import random

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from query_list.plain_text import plain_text, strip
from query_list.wikitext_names import LANGUAGES, RAW, TAGS

GERMAN = {-2: "Medium", 6: "Datei", 14: "Kategorie"}
RUSSIAN = {-2: "Медиа", 6: "Файл", 14: "Категория"}


def plain(wikitext: str, namespaces: dict[int, str] | None = None) -> str:
    return plain_text(pa.array([wikitext]), namespaces or {})[0].as_py()


def lines(wikitext: str, namespaces: dict[int, str] | None = None) -> list[str]:
    """The lines that have text, each with its words a space apart."""
    found = [" ".join(line.split()) for line in plain(wikitext, namespaces).split("\n")]
    return [line for line in found if line]


def assert_reads(wikitext: str, *expected: str) -> None:
    assert lines(wikitext) == list(expected), plain(wikitext)


# --- what goes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "removed",
    [
        "{{template|with=an argument}}",
        "{{outer|{{inner|{{{parameter|}}}}}\n|next=line}}",
        "{{{parameter|default}}}",
        "{{#if: a | b | c }}",
        "{{lang|fr|mot}}",
        "\n{|\n! a\n|-\n| b || c\n|}\n",
        "\n{| class=x\n|\n{| \n| inner\n|}\n| more\n|}\n",
        "\n{{{!}} class=x\n{{!}} cell\n{{!}}}\n",
        "<table><tr><td>a<table><tr><td>b</td></tr></table></td></tr></table>",
        "<math>x_1 < {{y}}</math>",
        "<gallery>\nFile:A.jpg|a caption\n</gallery>",
        "<SyntaxHighlight lang=c>a[[0]] = '''</SyntaxHighlight>",
        "<references>\n<ref name=a>b</ref>\n</references>",
        "<timeline>a</timeline>",
        "https://example.org/a?b=(c)",
        "[[File:A.jpg|thumb|a [[caption|with]] a [http://x.org link] and {{a|template}}]]",
        "[[image:A.jpg]]",
        "[[Media:A.ogg|sound]]",
        "[[Bild:A.jpeg|miniatur|an alias that no dump names]]",
    ],
)
def test_what_is_removed_leaves_a_boundary_between_the_words_on_both_sides(removed):
    assert_reads(f"before {removed} behind", "before", "behind")


@pytest.mark.parametrize(
    "unseen",
    [
        "<!-- a {{ comment -->",
        "<ref>a {{cite|b}}</ref>",
        "<ref name='a' group=b />",
        '<Ref name="a">b</ref >',
        "[[Category:A|sort key]]",
        "[[de:Anderswo]]",
        "[[zh-min-nan:A|b]]",
        "__NOTOC__",
        "<section begin=a />",
        "[https://example.org]",
    ],
)
def test_what_a_reader_does_not_see_between_two_words_leaves_them_neighbours(unseen):
    assert_reads(f"before {unseen} behind", "before behind")
    assert_reads(f"before{unseen} behind", "before behind")


@pytest.mark.parametrize("unseen", ["<ref>a</ref>", "<ref/>", "[[Category:A]]", "[//a.org]"])
def test_no_two_words_are_joined_where_something_went(unseen):
    assert_reads(f"before{unseen}behind", "before behind")
    assert_reads(f"before{unseen}.", "before.")


def test_a_wiki_s_own_names_of_namespaces_are_known_in_each_case_of_their_first_letter():
    for wikitext in ("a [[Datei:B.xyz|b]] [[ datei : B.xyz|b]]", "a [[Medium:B.xyz]]"):
        assert lines(wikitext, GERMAN) == ["a"]
    assert lines("a [[Kategorie:B]] [[Category:B]] c", GERMAN) == ["a c"]
    assert lines("а [[файл:Б|б]] [[Файл:Б|б]]", RUSSIAN) == ["а"]
    assert lines("а [[категория:Б|б]]", RUSSIAN) == ["а"]
    assert lines("a [[Datei:B|b]]") == ["a b"]  # to another wiki it is a page like any other


def test_rows_of_a_table_that_a_template_opened_are_removed():
    assert_reads("{{Table begin}}\n|-\n| a\n| b || c\n|}\nText.", "Text.")


# --- what stays -------------------------------------------------------------------------------


def test_a_link_reads_as_its_text_and_the_letters_behind_it_belong_to_its_word():
    assert_reads("a [[cat]]s and [[Dog (animal)|dog]]gy", "a cats and doggy")
    assert_reads("[[:Category:Cats]], [[:File:A.jpg|the file]]", "Category:Cats, the file")
    assert_reads("[[wikt:cat]] [[Re:Zero]] [[.gif|GIF]]", "wikt:cat Re:Zero GIF")
    assert_reads("[[wikisource:File:A.pdf|the book]]", "the book")
    assert_reads("[[a|b|c]]", "b|c")


def test_an_external_link_reads_as_its_text():
    assert_reads("see [https://example.org/x the ''page''] now", "see the page now")
    assert_reads("[mailto:a@b.c write] [//a.b c] [d] [sic: e]", "write c [d] [sic: e]")
    assert_reads("[[http://a.b c]]", "[c]")
    assert_reads("[[File:A.jpg|b [http://c.d e]]] [http://a.b [[c|d]] e] f", "d e f")


def test_headings_list_items_and_paragraphs_stand_on_lines_of_their_own():
    wikitext = "A\n== ''B'' ==\n* c\n*# d\n; e : f\n----\n:: g\n\nh"
    assert_reads(wikitext, "A", "B", "c", "d", "e : f", "g", "h")


def test_only_a_line_between_equals_signs_is_a_heading():
    assert_reads("=== a == b", "=== a == b")
    assert_reads("== a ===<!-- b -->  ", "a =")
    assert_reads("=== a ==", "= a")
    assert_reads("a == b ==", "a == b ==")


def test_a_paragraph_goes_on_in_the_next_line_and_a_poem_does_not():
    assert_reads(
        "one\n'''two'''\n<!-- a line of its own -->\n[[three]]\n\nfour", "one two three", "four"
    )
    assert_reads("<poem>one\ntwo</poem>\nthree\nfour", "one", "two", "three four")


def test_inline_tags_vanish_within_words_and_block_tags_end_lines():
    assert_reads("H<sub>2</sub>O <b>b</b>old<nowiki/>er <span style='a'>s</span>", "H2O bolder s")
    assert_reads("a<br>b<br />c<div class=x>d</div>e<blockquote>f</blockquote>", *"abcdef")
    assert_reads("1 < 2 <unknown> <3", "1 < 2 <unknown> <3")


def test_what_nowiki_and_pre_hold_is_read_as_it_stands():
    assert_reads("a <nowiki>[[b]] ''c'' {{d}} &amp;</nowiki> e", "a [[b]] ''c'' {{d}} & e")
    assert_reads("a <pre>{{b}}\n&lt;c&gt;</pre> d", "a", "{{b}}", "<c>", "d")
    assert_reads("{{a|<nowiki>}}</nowiki>}} b", "b")


def test_marks_of_bold_and_italic_vanish_and_apostrophes_stay():
    assert_reads("'''a''' ''b'' '''''c''''' it's dogs' ''''d''''", "a b c it's dogs' 'd'")
    assert_reads("l'''amour'' fou", "l'amour fou")  # one apostrophe and an italic, as in MediaWiki
    assert_reads("the ''Iliad'''s heroes", "the Iliad's heroes")
    assert_reads("''[[a|''b'''s]]'' l'''amour''", "b's l'amour")
    assert_reads("[[Lista d''e paise]]", "Lista d''e paise")


@pytest.mark.parametrize(
    ("entity", "character"),
    [
        ("&nbsp;", "\xa0"),
        ("&ndash;", "–"),
        ("&amp;amp;", "&amp;"),
        ("&Auml;", "Ä"),
        ("&#8211;", "–"),
        ("&#x2013;", "–"),
        ("&#X1F600;", "😀"),
        ("&unknown;", "&unknown;"),
        ("&AMP", "&AMP"),
        ("&#0;", "&#0;"),
        ("&#xD800;", "&#xD800;"),
        ("&#x110000;", "&#x110000;"),
        ("&#;", "&#;"),
        ("&lt;ref>", "<ref>"),
        ("&#91;&#91;a|b]]", "[[a|b]]"),
    ],
)
def test_entities_are_decoded_once_and_unknown_ones_stay(entity, character):
    assert plain(f"a{entity}b") == f"a{character}b"


def test_all_entities_of_html_are_known():
    names = [name for name in html.entities.html5 if name.endswith(";")]
    wikitext = "".join(f"&{name}" for name in names)
    assert plain(wikitext) + "$" == "".join(html.entities.html5[name] for name in names) + "$"


# --- what is broken ---------------------------------------------------------------------------


def test_what_is_not_closed_removes_nothing_that_follows():
    assert_reads("a {{b\n\nc {{d}} e", "a {{b", "c", "e")
    assert_reads("a {{infobox\n| name = b {{small|c}\n}}\n\nd", "a {{infobox", "d")
    assert_reads("a [[b\n\nc [[d|e]] f", "a b", "c e f")
    assert_reads("a [[File:b|c\n== d ==\ne ]] f", "a File:b", "c", "d", "e ]] f")
    assert_reads("a\n{| class=x\n| b\n\nc", "a", "c")
    assert_reads("a <ref> b <ref name=c/> d", "a b d")
    assert_reads("a <math> b </b> [http://c d\ne", "a b d e")
    assert_reads("a <!-- b\n\nc", "a")


def test_closers_without_an_opener_and_crossed_ones_remove_nothing_more():
    assert_reads("a }} b ]] c </ref> d\n|}\ne", "a }} b ]] c d", "e")
    assert_reads("a {{b [[c }} d ]] e", "a", "d ]] e")
    assert_reads("a [[b|c {{d ]] e }} f", "a c", "f")
    assert_reads("a\n{|\n| {{b\n|}\nc", "a", "c")
    assert_reads("{{a\n|}} b", "b")


def test_braces_close_from_the_inside_three_for_a_parameter_and_two_for_a_template():
    assert_reads("a {{{{b}} c}} d", "a", "d")
    assert_reads("a {{{{{b}}} c}} d", "a", "d")
    assert_reads("a {{{b}} c", "a {", "c")
    assert_reads("a {{b}}} c", "a", "} c")
    assert_reads("a {b} c", "a {b} c")


def test_null_stays_null_and_a_slice_or_chunks_read_as_whole_arrays_do():
    pages = pa.array(["x", "'''a'''", None, "", "[[b|c]]"])
    assert plain_text(pages, {}).to_pylist() == ["x", "a", None, "", "c"]
    assert plain_text(pages[1:4], {}).to_pylist() == ["a", None, ""]
    chunked = pa.chunked_array([pages[:2], pages[2:]])
    assert plain_text(chunked, {}).to_pylist() == ["x", "a", None, "", "c"]
    assert plain_text(pages[:0], {}).to_pylist() == []


PIECES = [
    *("{{", "}}", "{{{", "}}}", "{", "}", "{|", "|}", "\n{|", "\n|}", "\n|-", "\n!", "{{!}}"),
    *(
        "[[",
        "]]",
        "[",
        "]",
        "|",
        "[http://a ",
        "http://b",
        "[[File:a",
        "[[a:b.jpg|",
        "[[:",
        "[[de:",
    ),
    *("<ref>", "</ref>", "<ref/>", "<ref", "<!--", "-->", "<table>", "</table>", "<pre>", "</pre>"),
    *("<nowiki>", "</nowiki>", "<poem>", "<br>", "<b>", "</b>", "<math>", "</math>", "<", ">"),
    *("'", "''", "'''", "'''''", "&nGt;", "&amp;", "&#x41;", "&", "__TOC__", "__", ":", "://"),
    *("\n", "\n\n", "\n==", "==\n", "\n*", "\n:", "\n ", " ", "a", "é", "文", "😀", "word", "\0"),
]
markup = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=60).map("".join)


@given(st.lists(markup | st.none(), max_size=5))
@example(["&nGt;" * 1000, "a", "\n==" * 500, "'''a ''b " * 300])
def test_any_mix_of_markup_gives_valid_text_of_bounded_length_page_by_page(pages):
    found = plain_text(pa.array(pages, pa.string()), GERMAN)
    found.validate(full=True)
    for page, text in zip(pages, found.to_pylist(), strict=True):
        assert (page is None) == (text is None)
        if page is not None:
            assert 5 * len(text.encode()) <= 6 * len(page.encode())
            assert plain(page, GERMAN) == text  # whatever stands beside it


@given(markup, st.text(alphabet="xyz", min_size=1, max_size=5))
def test_a_paragraph_behind_any_markup_that_is_not_closed_is_kept(before, word):
    for raw in ("<", "|", "]", "}"):
        before = before.replace(raw, "")
    assert lines(f"{before}\n\n{word}")[-1] == word


UNITS = [*PIECES, "[[a|", "[[File:a|", "{{a|", "<ref", "<ref name=", "<table><", "</table>", "[[:a"]
UNITS += ["{{a}}", "[[a|b]]", "'''a ''b [[c|", "\n{|\n|", "\n|}\n", "&a", "[[a:b:c.jpg", "\n== a"]
UNITS += [f"<{tag}>" for kind in RAW for tag in TAGS[kind].split()]


def work(page: str) -> float:
    """Bytes looked at for each byte of a page."""
    return strip(pa.array([page]), {})[1] / len(page.encode())


def test_the_time_is_linear_in_the_length_for_all_repeated_markup():
    for unit in UNITS:
        other = random.Random(unit).choice(UNITS)
        assert work(unit * 20_000) <= 8, unit
        assert work(unit * 20_000 + other * 20_000) <= 8, (unit, other)
    mixed = "".join(random.Random(1).choices(UNITS, k=100_000))
    assert work(mixed) <= 30  # each name of a raw tag may be searched once in the whole page


@pytest.mark.parametrize(
    ("opener", "closer"),
    [
        ("{{", "}}"),
        ("{{a|{{{", "}}}\n}}"),
        ("[[a|'''b ''c ", "]]"),
        ("[[File:a|'''b ''c ", "]]"),
        ("[[:", "]]"),
        ("{{[[a|", "]]}}"),
        ("\n== {|\n{|", "\n|} ==\n|}"),
        ("<table>", "</table>"),
    ],
)
def test_the_time_is_linear_in_the_length_for_all_nested_markup(opener, closer):
    assert work(opener * 20_000 + "text " * 20_000 + closer * 20_000) <= 8


def test_a_language_s_code_is_no_common_prefix_of_titles():
    assert len(set(LANGUAGES.split())) == len(LANGUAGES.split()) > 350
    for prefix in ("re", "category", "file", "ex", "star wars"):
        assert prefix not in LANGUAGES.split()
