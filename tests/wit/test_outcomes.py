"""One list of outcomes, and no other word anywhere."""

import re
from pathlib import Path

from wit.outcomes import HOST_FAILURES, OUTCOMES, SUCCESS, TRANSIENT, status

ROOT = Path(__file__).resolve().parents[2]
IMG2DATASET = {"success", "failed_to_download", "failed_to_resize"}


def test_every_outcome_has_a_status_of_img2dataset_and_an_explanation():
    assert next(iter(OUTCOMES)) == SUCCESS
    assert {status(outcome) for outcome in OUTCOMES} == IMG2DATASET
    assert all(text.endswith(".") for _, text in OUTCOMES.values())
    assert set(OUTCOMES) > TRANSIENT


def test_the_code_knows_exactly_these_outcomes():
    rooms = ("wit", "wit/web", "pipeline", "pipeline/fetch")
    files = [path for room in rooms for path in (ROOT / room).glob("*.py")]
    files.remove(ROOT / "wit" / "outcomes.py")
    files += [ROOT / "pipeline" / "blocking.py", ROOT / "wit" / "shard_rewrite.py"]
    source = "\n".join(path.read_text() for path in files)
    raised = set(re.findall(r'(?:Refused|Failed|_Rejected|Decoded)\(\s*"(\w+)"', source))
    assert raised <= set(OUTCOMES)
    assert set(OUTCOMES) - {SUCCESS} <= set(re.findall(r'"(\w+)"', source))


def test_the_documentation_has_the_same_list_word_for_word():
    text = (ROOT / "docs" / "outcomes.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(name, *entry) for name, entry in OUTCOMES.items()]
    repeated = text[text.index("Repeated (") : text.index("## Limits")]
    assert set(re.findall(r"`(\w+)`", repeated)) == TRANSIENT
    limits = text[text.index("## Limits") : text.index("## Manners")]
    assert set(re.findall(r"`(\w+)`", limits)) <= set(OUTCOMES)


def test_what_ends_a_host_is_among_the_outcomes_of_requests():
    assert set(OUTCOMES) > HOST_FAILURES
