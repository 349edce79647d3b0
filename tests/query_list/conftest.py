"""What the tests of downloads share."""

import pytest

from query_list.download import web
from tests.query_list.downloads import add_all
from tests.query_list.dump_server import DumpServer


@pytest.fixture
def server(monkeypatch):
    """A server with all that can be downloaded, which is asked again at once."""
    monkeypatch.setattr(web, "PAUSE", 0.01)
    monkeypatch.setattr(web, "BUSY_PAUSE", 0.01)
    with DumpServer() as server:
        add_all(server)
        yield server
