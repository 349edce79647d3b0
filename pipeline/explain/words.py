"""Stories as a person reads them: a step a line, aligned, wrapped at the width of the screen."""

from __future__ import annotations

import textwrap
import unicodedata

from pipeline.explain.story import Step, Story

LONGEST = 160  # characters of a cell; the whole of it is in --json
ROWS = 12  # of a step's table
LEAST = 30  # characters that a last cell has


def render(stories: list[Story], width: int = 100, rows: int = ROWS) -> str:
    """Returns the stories as text."""
    return "\n\n".join(_story(story, max(60, width), rows) for story in stories)


def _story(story: Story, width: int, rows: int) -> str:
    lines = [f"{story.kind}  {printable(story.title)}"]
    names = max([len(step.name) for step in story.steps] + [len("fate")])
    for step in story.steps:
        lines += _step(step, names, width, rows)
    said = f"{story.fate}: {printable(story.reason, 1000)}"
    lines += _hanging(f"  {'fate':<{names}}  ", said, width)
    return "\n".join(lines)


def _step(step: Step, names: int, width: int, rows: int) -> list[str]:
    lines = _hanging(f"  {step.name:<{names}}  ", printable(step.said, 1000), width)
    table = [[printable(cell) for cell in row] for row in step.rows[:rows]]
    if len(step.rows) > rows:
        table.append([f"and {len(step.rows) - rows:,} more (--json has all)"])
    columns = max(map(len, table), default=0)
    wide = [
        max((len(row[i]) for row in table if i + 1 < len(row)), default=0) for i in range(columns)
    ]
    for row in table:
        cells = [
            cell.rjust(wide[i]) if cell.replace(",", "").isdigit() else cell.ljust(wide[i])
            for i, cell in enumerate(row[:-1])
        ]
        head = " " * (names + 6) + "".join(f"{cell}  " for cell in cells)
        lines += _hanging(head, row[-1] if row else "", width)
    return lines


def _hanging(head: str, last: str, width: int) -> list[str]:
    """The last cell of a row, wrapped below itself; words, as URLs are, stay whole."""
    return textwrap.wrap(
        last,
        max(width, len(head) + LEAST),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    ) or [head.rstrip()]


def printable(text: str, longest: int = LONGEST) -> str:
    """Returns a stranger's text on one line, without what could command a terminal."""
    plain = "".join(
        " " if char.isspace() else char if unicodedata.category(char)[0] != "C" else "\ufffd"
        for char in text
    )
    return plain if len(plain) <= longest else plain[: longest - 3] + "..."
