"""HTTP server of the demo on 127.0.0.1, which serves only the page of this package."""

import errno
import io
import json
import re
import socket
import sys
import threading
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from fcos.errors import UserError
from fcos.inference.demo import MAX_BYTES, Demo, Refused

HOST = "127.0.0.1"
MAX_JSON_BYTES = 10_000
REQUEST_S = 60.0  # longest time for receiving the head of a request, and then its body, from this machine
MAX_CONNECTIONS = 64  # a browser opens six for each of its windows
MAX_UPLOADS = 2  # received at the same time, since each is held in memory
UPLOAD_WAIT_S = 60.0  # longest time for which another upload waits
ONCE = ("Host", "Origin", "Content-Length")  # headers whose repetition has no meaning
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class DemoServer(ThreadingHTTPServer):
    """The web server of `fcos demo`, on this machine's loopback address only."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, demo: Demo, port: int) -> None:
        self.demo = demo
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.uploads = threading.BoundedSemaphore(MAX_UPLOADS)
        super().__init__((HOST, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; connections beyond the limit are closed at once."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread
            self.connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error of a page that is closed before the answer is complete."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(demo: Demo, port: int) -> DemoServer:
    """Return a server that listens on `port` of 127.0.0.1 (0: a free port); call `serve_forever` to answer."""
    try:
        return DemoServer(demo, port)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise UserError(
            "--port",
            "is in use" if in_use else "cannot be opened",
            found=port if in_use else f"{port}: {error.strerror}",
            expected="a free port",
            hint="fcos demo --port 0 takes a free one",
        ) from None


class _Incoming(socket.SocketIO):
    """What a client sends, up to a point in time: a client that sends drop by drop is left then."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        self.connection = connection
        self.wait()

    def wait(self) -> None:
        """Wait from now on for the next part of a request."""
        self.until = time.monotonic() + REQUEST_S

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes; raises TimeoutError when the time is over."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        try:
            return super().readinto(buffer)
        finally:
            self.connection.settimeout(REQUEST_S)  # for the answer


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.incoming = _Incoming(self.connection)
        self.rfile = io.BufferedReader(self.incoming)

    def handle_one_request(self) -> None:
        self.incoming.wait()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because a slider sends many requests."""

    def _answer(self, find: Any) -> None:
        """Send the (content type, body) that `find` returns, or its error."""
        status, kind, body = HTTPStatus.OK, "application/json", b""
        try:
            self._refuse_strangers()
            self._refuse_ambiguous()
            kind, body = find()
        except Refused as refused:
            status, body = refused.status, _error(str(refused))
            self.close_connection = True  # the request body was not read
        except UserError as error:  # a missing or damaged file
            status, body = HTTPStatus.BAD_REQUEST, _error(str(error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            traceback.print_exc()
            status, body = HTTPStatus.INTERNAL_SERVER_ERROR, _error("something went wrong; see the terminal")
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **SECURITY}.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "max-age=3600" if kind.startswith("image/") else "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _refuse_strangers(self) -> None:
        """Refuse requests by another site's host name (DNS rebinding) and requests that another site sends."""
        hosts = [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]
        if self.headers.get("Host") not in hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"open http://{hosts[0]}")
        if self.headers.get("Origin", f"http://{hosts[0]}") not in [f"http://{host}" for host in hosts]:
            raise Refused(HTTPStatus.FORBIDDEN, "requests from other sites are refused")

    def _refuse_ambiguous(self) -> None:
        """Refuse a request whose end another program may see elsewhere: what follows would be a request of its own."""
        if twice := [name for name in ONCE if len(self.headers.get_all(name, [])) > 1]:
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than one {twice[0]}")
        if "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a body with its length is expected, and not in parts")
        if self.command == "GET" and self.headers.get("Content-Length", "0") != "0":
            raise Refused(HTTPStatus.BAD_REQUEST, "no body is expected")

    def _get(self) -> tuple[str, bytes]:
        match self.path.split("?")[0].split("/")[1:]:
            case [""]:
                return "text/html; charset=utf-8", files("fcos.inference").joinpath("demo.html").read_bytes()
            case ["study"]:
                return _json(self.server.demo.describe())
            case ["images", name]:
                return "image/jpeg", self.server.demo.shown(unquote(name))
            case ["thumbnails", name]:
                return "image/jpeg", self.server.demo.shown(unquote(name), thumbnail=True)
        raise Refused(HTTPStatus.NOT_FOUND, "not found")

    def _post(self) -> tuple[str, bytes]:
        match self.path:
            case "/images":
                return _json({"image": self._upload()})
            case "/detections":
                return _json(self.server.demo.detect(**_asked(self._body(MAX_JSON_BYTES))))
        raise Refused(HTTPStatus.NOT_FOUND, "not found")

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]+", length):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is missing")
        if len(length) > 15 or int(length) > most:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"That is too large: {most:,} bytes are the limit")
        self.incoming.wait()
        try:
            body = self.rfile.read(int(length))
        except TimeoutError:
            body = b""
        if len(body) < int(length):
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"it did not arrive within {REQUEST_S:.0f} seconds")
        return body

    def _upload(self) -> str:
        """Receive an image and return its id; few at a time, since their bytes are in memory."""
        if not self.server.uploads.acquire(timeout=UPLOAD_WAIT_S):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "other images are being received: try again")
        try:
            return self.server.demo.add(self._body(MAX_BYTES))
        finally:
            self.server.uploads.release()


def _asked(body: bytes) -> dict[str, Any]:
    """Return the validated arguments of `Demo.detect`."""
    try:
        asked = json.loads(body)
        thresholds = {name: float(asked[name]) for name in ("score", "nms")}
        if not all(0 <= value <= 1 for value in thresholds.values()):
            raise ValueError
        return {"image": str(asked["image"]), "run_name": str(asked["run"]), **thresholds}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        expected = "JSON with image, run, score and nms is expected, the last two from 0 to 1"
        raise Refused(HTTPStatus.BAD_REQUEST, expected) from None


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value, allow_nan=False).encode()


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()
