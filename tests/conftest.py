"""What the tests of every room share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Here and in no module of tests, so that a session makes each of them once.
from tests.pipeline.demo_run import demo_inputs, demo_port, demo_queries, finished

__all__ = ["demo_inputs", "demo_port", "demo_queries", "finished"]

# No deadline: a first call may compile a kernel. The same examples each time, so that a change is
# never held up by what it did not touch; `make test-long` looks for new ones.
settings.register_profile("repeated", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None)
settings.load_profile("repeated")

# A shell's background jobs ignore Ctrl-C, and so would programs that tests start and stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are called by their length: gzip's hold the second in which they were made.

    Processes that share the tests must call them alike.
    """
    return f"{argname}{len(val)}" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real pages, pictures and captions; skip where this checkout has none."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout: real pages and pictures are needed")
    return SHARED


@pytest.fixture
def only_loopback(monkeypatch) -> None:
    """No connection to another machine is made, whatever the code under test decides."""
    from wit.web.client import Client

    make = Client._socket

    def guarded(self, info):
        assert info[4][0].startswith("127."), f"a connection to {info[4]} was about to be made"
        return make(self, info)

    monkeypatch.setattr(Client, "_socket", guarded)
