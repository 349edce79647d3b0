"""What the tests of the pipeline share."""

import pytest

from tests.faulty import FaultyServer


@pytest.fixture
def server():
    """The server that misbehaves."""
    with FaultyServer() as running:
        yield running


@pytest.fixture
def retry_soon(monkeypatch):
    """A failed request is repeated after a tenth of a second."""
    monkeypatch.setattr("pipeline.fetch.schedule.retry_delay", lambda *_: 0.1)
