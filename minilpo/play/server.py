"""The server of `minilpo play`: hands the page and its answers to this machine alone.

A request must name this machine as its host (so no foreign name can be pointed here), come from the
page itself or from no page, and carry the random token of the address. Other pages in the same
browser can do none of these.

Connections have threads of their own, so a slow one delays nobody. The main thread answers the
questions one after the other: only there can an alarm stop the code of a user's own task (see
`tasks.calling.limited`).
"""

import contextlib
import errno
import hmac
import json
import os
import queue
import secrets
import socketserver
import sys
import threading
import webbrowser
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from minilpo.machine.text import named, one_line
from minilpo.play.table import Table
from minilpo.run.folder import Run

LOOPBACK = "127.0.0.1"
LOWEST_PORT, HIGHEST_PORT = 1024, 65535
LONGEST_BODY = 20_000  # bytes of a question
PATIENCE = 10.0  # seconds until a connection that says nothing is closed
MOST_WAITING = 16  # more questions are refused
FILES = {  # by their place under the address
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    # Only the page's own script and style may be loaded, and only this server may be asked.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def serve(run: Run, port: int = 0, open_browser: bool = True) -> None:
    """Serves a page to play with a run until Ctrl-C; its address is printed.

    Raises ValueError if the run isn't trained or was damaged, or the port (0: any that is free)
    can't be used.
    """
    run.log("pretrain"), run.log("train")  # say if a file isn't there, or isn't what it was
    lm, head = run.language_model(trained=True), run.head()
    table = Table(lm, run.tasks, head, run.choices, run.path.resolve().name)
    with Server(table, port) as server:
        print(server.address)
        print("open this address in a browser on this machine; Ctrl-C ends it", flush=True)
        if open_browser:
            # In a thread, because some browsers only come back when they are closed.
            threading.Thread(target=webbrowser.open, args=[server.address], daemon=True).start()
        server.answer_questions()


class Server(ThreadingHTTPServer):
    """The page's server. Entered as a context, it listens; leaving the context closes it.

    Raises ValueError if the port (0: any that is free) isn't free, or no port.
    """

    allow_reuse_address = os.name == "posix"  # elsewhere it would let two programs share a port

    def __init__(self, table: Table, port: int = 0):
        self.table, self.token = table, secrets.token_urlsafe(24)
        self.questions: queue.Queue[tuple[Future, str, Any]] = queue.Queue(MOST_WAITING)
        self.is_open = True
        if port and not LOWEST_PORT <= port <= HIGHEST_PORT:
            raise ValueError(
                f"--port must be from {LOWEST_PORT} to {HIGHEST_PORT}, or 0 for any that is free, "
                f"got {port}"
            )
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ValueError(
                f"--port must be one that no other program uses, got {port}; "
                "choose another, or leave it out for any that is free"
            ) from None
        names = LOOPBACK, "localhost"
        self.hosts = {f"{name}:{self.server_port}" for name in names}
        self.address = f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Binds without asking the network for the machine's name, as the parent would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=[0.1], daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.is_open = False
        self.shutdown()
        self.server_close()

    def ask(self, question: str, asked: Any) -> Any:
        """Waits for the answer to a question, which `answer_questions` gives in its own thread."""
        answer: Future = Future()
        self.questions.put_nowait((answer, question, asked))
        return answer.result()

    def answer_questions(self) -> None:
        """Answers one question after the other, until the server is closed."""
        while self.is_open:
            # Not for ever: on Windows, Ctrl-C is only noticed between two waits.
            with contextlib.suppress(queue.Empty):
                answer, question, asked = self.questions.get(timeout=0.2)
                try:
                    answer.set_result(self.table.answer(question, asked))
                except Exception as error:  # whatever it is, the page lives on and says it
                    answer.set_exception(error)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints a line on any error but a connection that broke off."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"minilpo: {one_line(repr(error))}", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    """Handles one request: checks the sender first, then the question."""

    server: Server
    timeout = PATIENCE

    def do_GET(self) -> None:  # noqa: N802
        """Sends the page, its style or its script."""
        place = self._place()
        if place is None:
            return self._refuse(403, "open the address that minilpo play has printed")
        if place not in FILES:
            return self._refuse(404, "there is nothing at this address")
        name, kind = FILES[place]
        self._send(200, f"{kind}; charset=utf-8", Path(__file__).with_name(name).read_bytes())

    def do_POST(self) -> None:  # noqa: N802
        """Answers a question; both are JSON."""
        # Reads it all before a refusal: a sender that is still writing might not see it.
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return self._refuse(411, "a question must say its length")
        if len(length) > 9 or int(length) > LONGEST_BODY:
            return self._refuse(413, f"a question must have at most {LONGEST_BODY:,} bytes")
        body = self.rfile.read(int(length))
        place = self._place()
        if place is None:
            return self._refuse(403, "open the address that minilpo play has printed")
        if not place.startswith("ask/"):
            return self._refuse(404, "there is nothing at this address")
        if self.headers.get_content_type() != "application/json":
            return self._refuse(415, "a question must be application/json")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return self._refuse(400, "a question must be a JSON object")
        self._answer(place.removeprefix("ask/"), asked)

    def _answer(self, question: str, asked: dict[str, Any]) -> None:
        try:
            answer = self.server.ask(question, asked)
        except ValueError as error:
            return self._refuse(400, str(error))
        except queue.Full:
            return self._refuse(503, "too many questions are waiting; try again in a moment")
        except Exception as error:
            return self._refuse(500, f"minilpo couldn't answer: {named(error)}")
        self._send_json(200, answer)

    def _place(self) -> str | None:
        """Finds the place under the address; None if the sender isn't allowed to ask."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            return None
        if origins and origins != [f"http://{hosts[0]}"]:
            return None
        token, slash, place = self.path.removeprefix("/").partition("/")
        # In constant time: the time of the answer doesn't tell how much of a guess is right.
        is_known = hmac.compare_digest(token.encode(), self.server.token.encode())
        return place if is_known and slash else None

    def _refuse(self, status: int, why: str) -> None:
        self._send_json(status, {"error": one_line(why)})

    def _send_json(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content, allow_nan=False).encode()
        self._send(status, "application/json", data)

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses like everything else what the parent refuses, such as another method."""
        self._refuse(code, message or "this request isn't understood")

    def version_string(self) -> str:
        """Names the server in replies, without the version of Python."""
        return "minilpo"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Logs nothing: the terminal keeps the address in sight."""
