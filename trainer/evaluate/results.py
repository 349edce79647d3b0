"""What an evaluation found, and the two files that keep it.

    OUT/results.json          the weights and settings, and for each set its numbers and prompts
    OUT/predictions.parquet   wit.pairs.PREDICTIONS of all sets, sorted by the set's name

Both are written again after each set, so a command that was stopped goes on with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from wit import storage
from wit.errors import UserError
from wit.pairs import PREDICTIONS

RESULTS, TABLE = "results.json", "predictions.parquet"
FORMAT = 1


@dataclass(frozen=True)
class Result:
    """One set's: numbers (counts, and shares from 0 to 1), PREDICTIONS, the first faults."""

    set: str
    task: Literal["zero-shot", "retrieval"]
    numbers: dict[str, float]
    predictions: pa.Table
    faults: list[str]


def read_results(out: str, model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What results.json says of each set, {} where there is none.

    Raises:
        UserError: where it is of other weights or settings than `model` says.
    """
    path = storage.join(out, RESULTS)
    if not storage.exists(path) or not storage.exists(storage.join(out, TABLE)):
        return {}
    found = storage.read_json(path)
    if found.get("format") != FORMAT:
        raise UserError(f"{path}: not of this program (format {FORMAT}); choose another --out")
    before = found["model"]
    for name, value in model.items():
        if name != "weights" and before.get(name) != value:  # the same ones may lie anywhere
            raise UserError(
                f"{path}: is of a model whose {name} is {before.get(name)}, now it is {value}; "
                "choose another --out"
            )
    return found["sets"]


def write_results(
    out: str,
    model: dict[str, Any],
    sets: dict[str, dict[str, Any]],
    entry: dict[str, Any],
    result: Result,
) -> dict[str, dict[str, Any]]:
    """Adds a set's result to the two files; what results.json says of each set then.

    entry: what is to stand there beside the result's numbers. A set that stood there before is
    replaced.
    """
    table = storage.join(out, TABLE)
    others = sorted(set(sets) - {result.set})
    rows = {result.set: result.predictions}
    if others:
        before = storage.read_table(table, PREDICTIONS.names)
        rows |= {name: before.filter(pc.equal(before["set"], name)) for name in others}
    sets = sets | {
        result.set: entry | {"task": result.task, "faults": result.faults, **result.numbers}
    }
    # The table first: a set that is in results.json is in the table.
    whole = pa.concat_tables([rows[name].cast(PREDICTIONS) for name in sorted(rows)])
    storage.write_table(table, whole)
    value = {"format": FORMAT, "model": model, "sets": sets}
    storage.write_json(storage.join(out, RESULTS), value)
    return sets
