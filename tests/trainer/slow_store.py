"""An S3 server of our own that answers late, and counts what it was asked for."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LATENCY = 0.05  # seconds


class SlowStore:
    """WSGI middleware round moto's server: `latency` before each answer, GETs counted by name."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.latency = 0.0
        self.fail = 0  # how many requests from now on are answered with 503
        self.whole: Counter[str] = Counter()  # requests that begin at byte 0
        self.bytes = 0
        self._guard = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(self.latency)
        with self._guard:
            failing, self.fail = self.fail > 0, max(0, self.fail - 1)
        if failing:
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        parts = self.app(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            return parts
        data = b"".join(parts)
        with self._guard:
            self.bytes += len(data)
            if environ.get("HTTP_RANGE", "bytes=0-").startswith("bytes=0-"):
                self.whole[environ["PATH_INFO"].rpartition("/")[2]] += 1
        return [data]

    def reset(self, latency: float) -> None:
        """Begins to count anew."""
        self.latency, self.bytes = latency, 0
        self.whole.clear()


@contextmanager
def serve() -> Iterator[SlowStore]:
    """A server on 127.0.0.1 with a bucket `far`, reached by s3:// until the end."""
    import s3fs
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            """Nothing is printed."""

    store = SlowStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    saved = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}",
    )
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        s3fs.S3FileSystem().mkdir("far")
        yield store
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        os.environ.clear()
        os.environ.update(saved)
        server.shutdown()
        thread.join()
