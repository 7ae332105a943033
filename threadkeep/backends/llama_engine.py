"""The llama.cpp engine inside this process: started when first needed, one for equal settings, spoken to from any thread.

It is xllamacpp's server: a request to answer goes to it directly, a question about tokens over its loopback port, which is closed to
others by a random key. A forked child must not touch its parent's engine and starts its own.
"""

import atexit
import ctypes
import http.client
import json
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from threadkeep.backends.llama_slots import Slots
from threadkeep.memory.errors import BackendError, MissingExtra
from threadkeep.memory.message import JSON

HEARTBEAT = 0.5
"""Seconds without news after which a listener hears that the engine is at work."""
PIECE = 64
"""Tokens of a prompt read at a time. Between two pieces a request can be cancelled: at 64 in well under a second, and it is no slower."""
ASIDE = 2048
"""MiB of memory for what was read of conversations that have no slot just now, also of those that nobody goes on with; else up to 8 GiB."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What makes an engine; equal settings share one."""

    path: Path
    window: int
    """Tokens a conversation may take."""
    parallel: int
    """Conversations answered at once."""
    threads: int | None
    chat_template: str | None


class _Server(Protocol):
    listening_address: str

    def handle_chat_completions(self, body: dict[str, object], heard: Callable[[JSON], bool]) -> object: ...


class Engine:
    """A loaded model, answering."""

    def __init__(self, settings: Settings) -> None:
        self.pid = os.getpid()
        self._key = secrets.token_urlsafe(32)
        self.server = _start(settings, self._key)
        if _forked:
            _keep(self.server)
        self._address = self.server.listening_address.removeprefix("http://")
        self._idle: list[http.client.HTTPConnection] = []
        self._leaving = threading.Event()
        self._workers: set[threading.Thread] = set()
        self._slots = Slots(settings.parallel)
        weakref.finalize(self, _hang_up, self._idle)
        atexit.register(_leave, weakref.ref(self))

    def ask(self, path: str, body: JSON) -> Mapping[str, object]:
        """What the engine says to a small question, in milliseconds; it may be answering others meanwhile.

        Raises:
            BackendError: with the engine's words.
        """
        said = self._said(path, body)
        if not isinstance(said, dict):
            raise BackendError(f"the engine did not understand {path}: {said!r:.200}")
        return said

    def busy(self) -> int:
        """How many conversations it is answering at this moment."""
        slots = self._said("/slots", None)
        return sum(bool(slot["is_processing"]) for slot in slots) if isinstance(slots, list) else 0

    def _said(self, path: str, body: JSON | None) -> object:
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            status, answer = self._exchange("GET" if sent is None else "POST", path, sent, headers)
            said: object = json.loads(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BackendError(f"the engine did not answer {path}: {error or type(error).__name__}") from error
        if status != http.client.OK:
            raise BackendError(f"the engine refused {path}: {problem(said) or status}")
        return said

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        kept = True
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection, kept = http.client.HTTPConnection(self._address, timeout=60), False
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                if not kept:
                    raise
                continue  # a kept-alive connection drops now and then; the last try is on a new one
            self._idle.append(connection)
            return response.status, answer

    def answer(self, body: dict[str, object]) -> Generator[JSON | None, None, None]:
        """The engine's chunks for a chat request as they come; None when there was no news for a while.

        Closing the iterator cancels the request.

        Raises:
            BackendError: with the engine's words.
        """
        news: SimpleQueue[JSON | BaseException | None] = SimpleQueue()
        left = threading.Event()
        worker = threading.Thread(target=self._work, args=(body, news, left), name="threadkeep-llama", daemon=True)
        self._workers.add(worker)
        worker.start()
        try:
            while True:
                try:
                    chunk = news.get(timeout=HEARTBEAT)
                except Empty:
                    yield None
                    continue
                if chunk is None:
                    return
                if isinstance(chunk, BaseException):
                    raise BackendError(f"the engine failed: {chunk}") from chunk
                if "error" in chunk:
                    raise BackendError(f"the engine refused: {problem(chunk)}")
                yield chunk
        finally:
            left.set()
            self._slots.wake()

    def _work(self, body: dict[str, object], news: "SimpleQueue[JSON | BaseException | None]", left: threading.Event) -> None:
        def is_left() -> bool:
            return left.is_set() or self._leaving.is_set()

        def heard(chunk: JSON) -> bool:  # an exception in here would be swallowed by the engine
            if is_left():
                return True
            news.put(chunk)
            return False

        try:
            messages = body["messages"]
            assert isinstance(messages, list)
            slot = self._slots.take(messages, is_left)
            if slot is not None:
                try:
                    self.server.handle_chat_completions(body | {"id_slot": slot}, heard)
                finally:
                    self._slots.give_back(slot)
            news.put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the chunks are read
            news.put(error)
        finally:
            self._workers.discard(threading.current_thread())

    def leave(self) -> None:
        """Cancel everything and wait for it: a thread of the engine must not come back into an interpreter that is gone."""
        self._leaving.set()
        self._slots.wake()
        for worker in list(self._workers):
            worker.join(5)


_running: "weakref.WeakValueDictionary[Settings, Engine]" = weakref.WeakValueDictionary()
_starting = threading.Lock()
_forked = False
"""Whether this process came by fork() from one that had an engine."""


def engine_for(settings: Settings) -> Engine:
    """The running engine of these settings, started if there is none in this process.

    Raises:
        BackendError: the model could not be loaded.
        MissingExtra: the engine is not installed.
    """
    with _starting:
        engine = _running.get(settings)
        if engine is None:
            engine = _running[settings] = Engine(settings)
        return engine


def problem(said: object) -> str:
    """The engine's own words in an error it sent; empty when there are none."""
    error = said.get("error") if isinstance(said, Mapping) else None
    return str(error.get("message", "")) if isinstance(error, Mapping) else str(error or "")


def _start(settings: Settings, key: str) -> _Server:
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtra("xllamacpp", "local") from error
    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(settings.path)
    wanted.n_parallel = settings.parallel
    wanted.n_ctx = settings.window * settings.parallel
    wanted.n_batch = wanted.n_ubatch = PIECE
    wanted.cache_ram_mib = ASIDE
    wanted.fit_params = False  # it would change the window to what it finds fitting
    wanted.prefill_assistant = False  # a reply last in a context is a reply, not the beginning of the next
    wanted.warmup = False
    wanted.ui = False
    wanted.verbosity = -1  # silent
    wanted.cpuparams.poll = wanted.cpuparams_batch.poll = 0  # threads that spin between two tokens take the cores from everything else
    wanted.hostnames, wanted.port, wanted.api_keys = ["127.0.0.1"], 0, [key]
    if settings.threads is not None:
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = settings.threads
    if settings.chat_template is not None:
        wanted.chat_template = settings.chat_template
    try:
        server: _Server = xllamacpp.Server(wanted)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"{settings.path} could not be loaded: {error}") from error
    return server


def _hang_up(idle: list[http.client.HTTPConnection]) -> None:
    for connection in idle:
        connection.close()


def _leave(engine: "weakref.ref[Engine]") -> None:
    found = engine()
    if found is not None and found.pid == os.getpid():
        found.leave()


def _keep(server: _Server) -> None:
    """Never free it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))


def _forget() -> None:
    """In a forked child: threads of llama.cpp (an engine's, its log's) stayed with the parent, and to wait for them hangs or aborts.

    So what waits is never run: no engine is freed in the child, neither the parent's nor its own, and the C library's exit ends it.
    """
    global _running, _starting, _forked  # noqa: PLW0603 - a new process begins anew
    _starting = threading.Lock()
    if "xllamacpp" not in sys.modules:
        return
    for engine in list(_running.values()):
        _keep(engine.server)
    _running, _forked = weakref.WeakValueDictionary(), True
    c = ctypes.CDLL(None)
    if hasattr(c, "on_exit"):
        c.on_exit(c._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
