"""One list of outcomes, and no other word anywhere."""

import re
from pathlib import Path

from wit.outcomes import OUTCOMES, SUCCESS, TRANSIENT, status

ROOT = Path(__file__).resolve().parents[2]
IMG2DATASET = {"success", "failed_to_download", "failed_to_resize"}


def test_every_outcome_has_a_status_of_img2dataset_and_an_explanation():
    assert next(iter(OUTCOMES)) == SUCCESS
    assert {status(outcome) for outcome in OUTCOMES} == IMG2DATASET
    assert all(text.endswith(".") for _, text in OUTCOMES.values())
    assert set(OUTCOMES) > TRANSIENT


def test_the_code_knows_exactly_these_outcomes():
    files = [*(ROOT / "wit" / "web").glob("*.py"), *(ROOT / "pipeline" / "fetch").glob("*.py")]
    source = "\n".join(path.read_text() for path in files)
    raised = set(re.findall(r'(?:Refused|_Failed|_Rejected|Decoded)\(\s*"(\w+)"', source))
    assert raised <= set(OUTCOMES)
    assert set(OUTCOMES) - {SUCCESS} <= set(re.findall(r'"(\w+)"', source))
