"""nginx on loopback for benchmarks: plain and TLS, with a certificate authority of its own.

Needs `nginx` and `openssl` on the PATH (Debian: apt-get install nginx-light openssl). It runs from
a configuration and in a folder of its own, and ends with the `with` block, or with its parent.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Self

PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"
CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  open_file_cache max=20000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  types {{ image/jpeg jpg; }}
  ssl_certificate server.pem;
  ssl_certificate_key server.key;
  ssl_session_cache shared:sessions:10m;
  server {{
    listen {host}:{http} backlog=4096;
    listen {host}:{https} ssl backlog=4096;
    # Any number of URLs for one file: /17/00000.jpg
    location ~ ^/[0-9]+/(.+)$ {{ alias {pictures}/$1; }}
  }}
}}
"""


class WebServer:
    """Serves `pictures/NAME` as /NUMBER/NAME; `http` and `https` are its origins.

    `ca_file` is its authority's certificate, `bundle` that and the system's authorities in one file
    (a client that is given it as SSL_CERT_FILE has as many to load as any other client).
    """

    def __init__(self, folder: Path, pictures: Path) -> None:
        for program in ("nginx", "openssl"):
            if shutil.which(program) is None:
                raise SystemExit(f"{program} is not installed: apt-get install nginx-light openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca_file, self.bundle = folder / "ca.pem", folder / "bundle.pem"
        _certify(folder)
        system = ssl.get_default_verify_paths().cafile
        self.bundle.write_text(
            (Path(system).read_text() if system else "") + self.ca_file.read_text()
        )
        ports = _free_ports(2)
        self.http, self.https = f"http://{HOST}:{ports[0]}", f"https://{HOST}:{ports[1]}"
        self.addresses = tuple(f"{HOST}:{port}" for port in ports)
        user = "user root;" if os.geteuid() == 0 else ""
        values = {"user": user, "host": HOST, "http": ports[0], "https": ports[1]}
        text = CONFIGURATION.format(pictures=pictures.resolve(), **values)
        (folder / "nginx.conf").write_text(text)

    def __enter__(self) -> Self:
        place = str(self.folder.resolve())
        command = ["nginx", "-p", place, "-c", f"{place}/nginx.conf", "-e", "stderr"]
        with (self.folder / "nginx.log").open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
        for _ in range(100):
            if all(map(_listens, self.addresses)):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise SystemExit(f"nginx does not start: {(self.folder / 'nginx.log').read_text()[-500:]}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server."""
        self._process.terminate()
        self._process.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _listens(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def _certify(folder: Path) -> None:
    """Writes ca.pem, and server.pem with server.key for the loopback address."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=benchmark authority"]
    server = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=benchmark server"]
    sign = ["-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    for command in (
        ["req", *key, *authority, "-days", "30"],
        ["req", *key, *server],
        ["x509", "-req", *sign, "-extfile", "names", "-out", "server.pem", "-days", "30"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
