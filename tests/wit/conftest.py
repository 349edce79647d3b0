"""What the tests of the common ground share: stores of each kind, and a finished shard."""

import os
import uuid

import pytest

from tests.wit import shard_samples as samples
from wit import shards


@pytest.fixture(scope="session")
def s3():
    """A bucket on an S3 server of our own that stops with the tests."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    server_module = pytest.importorskip("moto.server", reason="no moto[server]: s3:// not tested")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    saved = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
    )
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    os.environ.clear()
    os.environ.update(saved)
    server.stop()


@pytest.fixture(params=["local", "file", "memory", "s3"])
def base(request, tmp_path):
    """An empty folder in each kind of store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
    return {
        "local": str(tmp_path / "out"),
        "file": f"file://{tmp_path}/out",
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }[request.param]


@pytest.fixture
def folder(tmp_path) -> str:
    """An output folder with a finished shard in `shards/`, and its manifest."""
    assert samples.write(str(tmp_path / "shards"))
    shards.write_manifest(str(tmp_path), {"seed": 7})
    return str(tmp_path)
