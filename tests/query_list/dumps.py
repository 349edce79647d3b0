"""Dumps made in tests: of pages that are given, in the form of Wikimedia's export version 0.11."""

import bz2
from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>dewiki</dbname>
    <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite_f%C3%BCr_alle</base>
    <generator>MediaWiki 1.45.0-wmf.4</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="14" case="first-letter">Kategorie</namespace>
      <namespace key="828" case="case-sensitive">Q&amp;A</namespace>
    </namespaces>
  </siteinfo>
"""
END = "</mediawiki>\n"


class Page(NamedTuple):
    """A page before it is written."""

    title: str
    text: str | None  # None: no text, as of a deleted revision
    redirect: str | None = None
    namespace: int = 0
    model: str = "wikitext"


def xml(page: Page) -> str:
    """The page as MediaWiki exports it."""
    quoted = {'"': "&quot;", "'": "&#039;"}
    redirect = ""
    if page.redirect is not None:
        redirect = f'\n    <redirect title="{escape(page.redirect, quoted)}" />'
    text = '<text bytes="7" deleted="deleted" />'
    if page.text is not None:
        size = len(page.text.encode())
        text = f'<text bytes="{size}" sha1="0" xml:space="preserve">'
        text += escape(page.text, {'"': "&quot;", "\r": "&#13;"}) + "</text>"
    return f"""  <page>
    <title>{escape(page.title, quoted)}</title>
    <ns>{page.namespace}</ns>
    <id>7</id>{redirect}
    <revision>
      <id>8</id>
      <timestamp>2025-01-01T00:00:00Z</timestamp>
      <contributor>
        <username>A &lt;text&gt; of a user</username>
      </contributor>
      <comment>&lt;page&gt;</comment>
      <origin>8</origin>
      <model>{page.model}</model>
      <format>text/x-wiki</format>
      {text}
      <sha1>0</sha1>
    </revision>
  </page>
"""


def single(pages: Iterable[Page]) -> bytes:
    """The dump, unpacked."""
    return (HEAD + "".join(map(xml, pages)) + END).encode()


def multistream(pages: list[Page], group: int, level: int = 1) -> bytes:
    """The dump as Wikimedia packs its multistream files: head, groups of pages, end."""
    parts = [HEAD, *("".join(map(xml, pages[i : i + group])) for i in range(0, len(pages), group))]
    return b"".join(bz2.compress(part.encode(), level) for part in [*parts, END])
