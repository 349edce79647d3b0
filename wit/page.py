"""What the web pages of every room share: a template, a style sheet, and how numbers are said.

A page extends `page.html`, whose content security policy lets it load nothing and run no script but
one that it names itself, and has the rules of `page.css` before its own. Every string that comes
into a page is escaped, for strangers wrote it.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 240  # characters of a stranger's text


def environment(folders: Path | list[Path], *, html: bool) -> Environment:
    """The templates of folders; in HTML every string is escaped. Blocks leave no empty lines.

    What a template names must be given to it.
    """
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )


def make_environment(templates: Path) -> Environment:
    """Returns what fills the templates of a folder and those that pages share.

    Its filters are count (1,234), percent, part, seconds, hours, bytes and short.
    """
    made = environment([templates, TEMPLATES], html=True)
    made.filters |= {
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "part": part,
        "seconds": seconds,
        "hours": hours,
        "bytes": size,
        "short": short,
    }
    return made


def part(count: int, whole: int) -> str:
    """`count` of `whole` in per cent: 0.04 % stays visible."""
    if not whole or not count:
        return "0 %" if whole else "–"
    share = 100 * count / whole
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def percent(count: float, whole: float) -> str:
    """`count` of `whole` as a length in CSS, between 0 and 100 %."""
    return f"{min(100 * count / whole, 100) if whole else 0:.2f}%"


def seconds(value: float) -> str:
    """A duration as people say it: 8.1 s, 12 min 30 s, 3 h 05 min."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def hours(value: float) -> str:
    """Seconds in hours: 0.013, 12.5."""
    return f"{value / 3600:,.{1 if value > 36_000 else 3}f}"


def size(value: float) -> str:
    """Bytes as people say them, in powers of 1,000: 12 KB, 3.4 GB."""
    names = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(names) > 1:
        value, names = value / 1000, names[1:]
    return f"{value:.1f} {names[0]}" if 0 < value < 9.95 else f"{value:,.0f} {names[0]}"


def short(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut in its middle where it is too long."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} … {line[-(longest // 4) :]}"
