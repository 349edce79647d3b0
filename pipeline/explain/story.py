"""What an explanation is: steps in the order of the harvest, each a sentence and its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WAITING = "waiting"  # the fate of what an unfinished run has still to decide


@dataclass(frozen=True)
class Step:
    """One thing that happened.

    Attributes:
        name: of the stage, or of what is told.
        said: a sentence for a person.
        facts: the numbers in it and more, as plain JSON values.
        rows: a table below the sentence, cells as they are printed.
    """

    name: str
    said: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Story:
    """Everything about one thing.

    Attributes:
        kind: `url`, `pair`, `query`, `host` or `page`.
        title: what it is about.
        fate: one word: for a pair an outcome of `wit.outcomes`, `duplicate_pair`, `other_text`,
            `over_cap`, `deferred` or `waiting`.
        reason: the fate in a sentence.
        steps: what led there.
    """

    kind: str
    title: str
    fate: str
    reason: str
    steps: list[Step]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; 64-bit hashes and priorities are hexadecimal."""
        steps = [{"step": step.name, "said": step.said, **step.facts} for step in self.steps]
        head = {"kind": self.kind, "title": self.title, "fate": self.fate, "reason": self.reason}
        return {**head, "steps": steps}


def count_of(number: int, one: str, many: str | None = None) -> str:
    """Returns `1 pair`, `2,345 pairs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(priority: int) -> str:
    """Returns a 64-bit priority as its place between 0 and 1."""
    return f"{priority / 2**64:.4g}"
