"""A stage as a person sees it, on the driver's screen and in `wit harvest status`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.progress import StageState
from wit.console import duration, rate_of


@dataclass(frozen=True)
class StageRow:
    """A stage that is over.

    Attributes:
        key: its name in OUT/progress.
        name: with its wave.
        session: that it was done in.
        tasks: all of them; 0 where there was nothing to do, which is not shown.
        seconds: that it took; None where it was done in an earlier session.
        rate: units a second; of `unit`, which is empty where tasks say it all.
        share: of the tasks that are done; below 1 where a limit came.
        fetched: bytes of pictures.
    """

    key: str
    name: str
    session: str
    tasks: int
    seconds: float | None
    rate: float = 0.0
    unit: str = ""
    share: float = 1.0
    fetched: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns its fields."""
        return asdict(self)

    def line(self) -> str:
        """Returns its line."""
        tasks = f"{self.tasks:>6} tasks" if self.tasks else ""
        if self.seconds is None:
            return f"{self.name:<20} {tasks:>12}  done before"
        share = "" if self.share > 0.999 else f"  {self.share:.0%}"
        rate = rate_of(self.rate, self.unit)
        return (
            f"{self.name:<20} {tasks:>12}  {duration(self.seconds):>9}  {rate:>16}{share}".rstrip()
        )


@dataclass(frozen=True)
class UnderWay:
    """A stage that goes on.

    Attributes:
        name: with its wave.
        tasks: all of them.
        share: of them that are done.
        rate: units a second, of `unit`; None as long as nothing can be said.
        left: seconds; None as long as nothing can be said.
    """

    name: str
    tasks: int
    share: float
    unit: str
    rate: float | None
    left: float | None

    def line(self) -> str:
        """Returns its line."""
        rate = "" if self.rate is None else rate_of(self.rate, self.unit)
        text = f"{self.name:<20} {self.share:>4.0%} of {self.tasks} tasks  {rate:>16}"
        left = "" if self.left is None else f"  {duration(self.left)} left"
        return (text + left).rstrip()


def under_way(name: str, unit: str, state: StageState, elapsed: float) -> UnderWay:
    """Returns how far a stage is after so many seconds of a session.

    What earlier sessions did says nothing of the speed of this one.
    """
    share = state.done / state.tasks if state.tasks else 1.0
    made = state.done - state.before
    rate = state.units / elapsed if unit and elapsed > 2 else None
    known = made > 0.01 * (state.tasks - state.before) and elapsed > 2
    left = elapsed * (state.tasks - state.done) / made if known else None
    return UnderWay(name, state.tasks, share, unit, rate, left)
