"""What the tests of the pipeline share."""

import random

import pytest

from tests.faulty import FaultyServer
from tests.pipeline.rows import harvester


@pytest.fixture
def server():
    """The server that misbehaves."""
    with FaultyServer() as running:
        yield running


@pytest.fixture
def retry_soon(monkeypatch):
    """A failed request is repeated after a tenth of a second."""
    monkeypatch.setattr("pipeline.fetch.schedule.retry_delay", lambda *_: 0.1)


@pytest.fixture
def harvest(tmp_path, monkeypatch):
    """Runs all stages over lists of (url, text), a list a source; the run and its funnel."""
    return harvester(tmp_path, monkeypatch)


@pytest.fixture
def mixed_rows() -> list[list[tuple[str, str]]]:
    """Eight sources with duplicates within and across them, one of them empty."""
    rng = random.Random(3)
    texts = ["red dress", "a dress", "red", "Dress, red"]

    def row() -> tuple[str, str]:
        number = rng.randrange(80)
        return f"http://h{number % 9}.example/{number}.jpg", rng.choice(texts)

    return [[row() for _ in range(count)] for count in (40, 1, 0, 33, 25, 14, 60, 7)]
