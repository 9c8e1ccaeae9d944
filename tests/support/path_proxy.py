"""A reverse proxy that has a service below a path, as nginx has it by ``location /img/ { proxy_pass http://…:8080/; }``.

nginx decodes a path, takes repeated slashes for one and ``..`` for a step back, replaces the location by its upstream's path,
and encodes again what a path cannot have: what was %2F arrives as a slash. (Compared with nginx 1.22.1 on 400 paths.)
"""

from __future__ import annotations

import http.client
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote, unquote_to_bytes, urlsplit

from tests.support.commands import GUARD
from tests.support.handler_server import handled_by

PREFIX = "/img/"
KEPT = "!$&'()*+,-./:;=@[]_~"
"""What is not encoded again, beside letters and digits."""


@contextmanager
def path_proxy(upstream: str) -> Iterator[str]:
    """Run a proxy to ``upstream`` on a free port; give the address below which it is."""
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, mark, query = self.path.partition("?")
            passed = passed_on(path)
            if passed is None:
                self.send_error(404)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            connection = http.client.HTTPConnection(target, timeout=GUARD)
            try:
                connection.request(self.command, f"{passed}{mark}{query}", headers={**headers, "Connection": "close"})
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with handled_by(Handler) as address:
        yield f"{address}{PREFIX.rstrip('/')}"


def passed_on(path: str) -> str | None:
    """Return the path that the upstream is asked for, None outside of the location."""
    plain = re.sub(r"/{2,}", "/", unquote_to_bytes(path).decode("latin-1"))
    folder = "/" if plain.endswith(("/", "/.", "/..")) else ""
    plain = posixpath.normpath(plain).rstrip("/") + folder
    return quote("/" + plain.removeprefix(PREFIX), safe=KEPT, encoding="latin-1") if plain.startswith(PREFIX) else None
