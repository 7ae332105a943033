"""A server on loopback that speaks OpenAI's chat completions by a script, badly where that is asked, and remembers its requests."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

JSON: TypeAlias = Mapping[str, object]


class Talk:
    """One request, and what is said to it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict[str, object], left: threading.Event) -> None:
        self._handler, self.body, self.left = handler, body, left
        self.headers = {key.lower(): value for key, value in handler.headers.items()}
        self.path = handler.path

    def refuse(self, status: int, said: object, headers: Mapping[str, str] | None = None) -> None:
        """An answer that is no stream."""
        sent = json.dumps(said).encode() if not isinstance(said, bytes) else said
        self._handler.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(sent)), **(headers or {})}.items():
            self._handler.send_header(key, value)
        self._handler.end_headers()
        self._handler.wfile.write(sent)

    def begin(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def raw(self, text: str) -> None:
        sent = text.encode()
        self._handler.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")

    def send(self, *chunks: object) -> None:
        for chunk in chunks:
            self.raw(f"data: {json.dumps(chunk)}\n\n")

    def end(self) -> None:
        self.raw("data: [DONE]\n\n")
        self._handler.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection in the middle of a chunk."""
        self._handler.wfile.write(b"ff\r\ndata: {")
        self._handler.connection.shutdown(socket.SHUT_RDWR)
        self._handler.close_connection = True

    def wait(self, seconds: float = 20) -> None:
        """Say nothing until whoever asked is gone."""
        ready, _, _ = select.select([self._handler.connection], [], [], seconds)
        if ready and not self._handler.connection.recv(1):
            self.left.set()
        self._handler.close_connection = True


Answer: TypeAlias = Callable[[Talk], None]


class Server:
    """Answers each request with the next of the script, and all further ones with the last."""

    def __init__(self) -> None:
        self.asked: list[Talk] = []
        self.script: list[Answer] = [says("Hello Ada.")]
        self.heard, self.left = threading.Event(), threading.Event()
        """Set once somebody asked; and once somebody closed a connection that had more to say."""
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                talk = Talk(self, body, server.left)
                with server._lock:
                    server.asked.append(talk)
                    answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                server.heard.set()
                try:
                    answer(talk)
                except (BrokenPipeError, ConnectionResetError):
                    server.left.set()
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def serving(*script: Answer) -> Iterator[Server]:
    server = Server()
    server.script = list(script) or server.script
    try:
        yield server
    finally:
        server.close()


def delta(text: str | None = None, finish: str | None = None, **more: object) -> dict[str, object]:
    """A chunk as OpenAI sends it."""
    said = {**({} if text is None else {"content": text}), **more}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def usage(prompt: int = 20, completion: int = 3, cached: int = 0, **more: object) -> dict[str, object]:
    """The last chunk."""
    used = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": {"cached_tokens": cached}, **more}
    return {"object": "chat.completion.chunk", "choices": [], "usage": used}


def streams(*chunks: object) -> Answer:
    def answer(talk: Talk) -> None:
        talk.begin()
        talk.send(*chunks)
        talk.end()

    return answer


def says(text: str, finish: str = "stop", **used: int) -> Answer:
    """A reply word by word, as OpenAI streams it."""
    words = [f"{' ' if place else ''}{word}" for place, word in enumerate(text.split(" "))]
    return streams(delta("", role="assistant"), *(delta(word) for word in words), delta(finish=finish), usage(**used))


def refuses(status: int, message: str = "no", headers: Mapping[str, str] | None = None, **more: object) -> Answer:
    return lambda talk: talk.refuse(status, {"error": {"message": message, **more}}, headers)


def cuts(*texts: str) -> Answer:
    """The connection breaks in the middle of the reply."""

    def answer(talk: Talk) -> None:
        talk.begin()
        talk.send(*(delta(text) for text in texts))
        talk.cut()

    return answer


def stalls(*texts: str) -> Answer:
    """Says this much, then nothing."""

    def answer(talk: Talk) -> None:
        talk.begin()
        talk.send(*(delta(text) for text in texts))
        talk.wait()

    return answer


def garbles(text: str, garbage: str) -> Answer:
    def answer(talk: Talk) -> None:
        talk.begin()
        talk.send(delta(text))
        talk.raw(f"data: {garbage}\n\n")
        talk.end()

    return answer


def hangs(talk: Talk) -> None:
    """Not even a status."""
    talk.wait()


def slow(seconds: float, then: Sequence[object]) -> Answer:
    """The first byte comes late."""

    def answer(talk: Talk) -> None:
        threading.Event().wait(seconds)
        streams(*then)(talk)

    return answer
