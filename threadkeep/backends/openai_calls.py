"""One call of an OpenAI-compatible server: tried again before the stream begins, timed, and never sent twice after.

Calls live on an event loop of their own: there a call can be left at any moment, while it connects, waits or reads, and its connection
closes at once.
"""

import asyncio
import concurrent.futures
import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from threadkeep.backends.openai_wire import BadChunk, Reading, words
from threadkeep.memory.errors import BackendError

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, AsyncStream

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, doubled before each further one; and what a server may ask to wait before it is given up."""
SPREAD = 0.25
"""The most that is added to a wait, as a share of it, so that not all who were refused come back at once."""
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum context|too many tokens|prompt is too long|input token count|reduce the length", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds, and how often it is asked again."""

    connect: float
    first_token: float
    next_token: float
    retries: int


class Line:
    """An event loop on a thread of its own, with the client that lives on it."""

    def __init__(self, connect: "Callable[[], AsyncOpenAI]") -> None:
        self.pid = os.getpid()
        self.client = connect()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="threadkeep-openai", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _live(self) -> None:
        self._loop, self._hang_up = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._hang_up.wait()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.client.close()

    def start(self, call: Coroutine[object, object, None]) -> "concurrent.futures.Future[None]":
        """Begin a call; cancelling what this returns leaves it.

        Raises:
            BackendError: it was closed at this moment.
        """
        try:
            return asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError as error:
            call.close()
            raise BackendError("the backend was closed") from error

    def close(self) -> None:
        """Leave every call and end the thread; nothing in a forked child, whose parent it belongs to."""
        if self.pid != os.getpid():
            return
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._hang_up.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)


class Call:
    """One request, and what is heard of its reply."""

    def __init__(
        self, who: str, body: dict[str, object], patience: Patience, learnt: set[str], say: Callable[[str | BaseException | None], None]
    ) -> None:
        self.reading = Reading()
        self._who, self._body, self._patience, self._learnt, self._say = who, body, patience, learnt, say

    async def run(self, client: "AsyncOpenAI") -> None:
        """Say each piece of text, then None; or why there is no more."""
        try:
            await self._ask(client)
        except asyncio.CancelledError:
            self._say(BackendError(f"{self._who}: the backend was closed while it answered"))
            raise
        except Exception as error:  # noqa: BLE001 - raised again where the pieces are read
            if self.reading.finish is None:
                self._say(error if isinstance(error, BackendError) else _failed(self._who, error))
                return
        self.reading.over()  # the reply was whole, whatever came after it
        self._say(None)

    async def _ask(self, client: "AsyncOpenAI") -> None:
        from openai import APIConnectionError, APIStatusError

        tries = 0
        while True:
            stream: AsyncStream[object] | None = None
            seconds = self._patience.first_token
            try:
                async with asyncio.timeout(seconds) as clock:
                    stream = await self._post(client)
                    async for chunk in stream:
                        text = self.reading.take(chunk)
                        if self.reading.first_token_ms is not None:
                            seconds = self._patience.next_token
                            clock.reschedule(asyncio.get_running_loop().time() + seconds)
                        if text:
                            self._say(text)
                if self.reading.finish is None:
                    raise BackendError(f"{self._who}: the stream ended before the reply did{_kind(stream)}")
            except TimeoutError:
                raise BackendError(self._too_slow(seconds)) from None
            except APIStatusError as error:
                if stream is None and self._adapt(error):
                    continue
                tries += 1
                wait = _wait(error, tries)
                if not _passing(error) or wait > LONGEST_WAIT or tries > self._patience.retries:
                    raise BackendError(self._refusal(error, tries, wait)) from error
            except APIConnectionError as error:
                tries += 1
                if stream is not None or tries > self._patience.retries:
                    raise _unreachable(self._who, error, tries, begun=stream is not None) from error
                wait = _wait(error, tries)
            else:
                return
            finally:
                if stream is not None:
                    await stream.close()
            await asyncio.sleep(wait * (1 + SPREAD * random.random()))

    async def _post(self, client: "AsyncOpenAI") -> "AsyncStream[object]":
        from openai import AsyncStream, Timeout

        body = dict(self._body)
        if "stream_options" in self._learnt:
            body.pop("stream_options", None)
        if "max_completion_tokens" in self._learnt and "max_tokens" in body:
            body["max_completion_tokens"] = body.pop("max_tokens")
        timeout = Timeout(None, connect=self._patience.connect)  # the others are timed here, from token to token
        return await client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options={"timeout": timeout, "max_retries": 0},
            stream=True,
            stream_cls=AsyncStream[object],
        )

    def _adapt(self, error: "APIStatusError") -> bool:
        """Whether the server refuses a part that can be left out or named otherwise: remembered, for all its later requests.

        Mistral refuses `stream_options` (avante-corp/avante.nvim#2347), OpenAI's reasoning models `max_tokens` (teilomillet/gollm#33).
        """
        if error.status_code not in (400, 422):
            return False
        said = f"{error.body} {error.message}"
        for part, sign in (
            ("stream_options", r"stream_options|include_usage"),
            ("max_completion_tokens", r"max_tokens.*max_completion_tokens"),
        ):
            sent = "max_tokens" if part == "max_completion_tokens" else part
            if part not in self._learnt and sent in self._body and re.search(sign, said, re.DOTALL):
                self._learnt.add(part)
                return True
        return False

    def _too_slow(self, seconds: float) -> str:
        if self.reading.first_token_ms is None:
            return f"{self._who} gave no first token within {seconds:g} s: give it more (first_token_timeout), or ask another model"
        return f"{self._who} fell silent in the middle of its reply: nothing for {seconds:g} s (next_token_timeout)"

    def _refusal(self, error: "APIStatusError", tries: int, wait: float) -> str:
        status, why = error.status_code, words(error.body or error.message)
        said = f"({status}): {why}"
        times = f" {tries} times" if tries > 1 else ""
        if status == 401:
            return f"{self._who} does not know the key {said}. Give api_key=…"
        if status == 403:
            return f"{self._who} does not permit this {said}. Ask for a key that may, or for another model"
        if status == 404:
            return f"{self._who} was not found {said}. Check the model's name, and base_url, which often ends in /v1"
        if status == 429 and not _passing(error):
            return f"{self._who} has no credit left for this key {said}. Another try does not help"
        if _passing(error) and wait > LONGEST_WAIT:
            return f"{self._who} asks to wait {wait:g} s {said}. Try again then"
        if status in (400, 413, 422) and (error.code == "context_length_exceeded" or status == 413 or _TOO_LONG.search(why)):
            return f"{self._who} found the request too long {said}. Give the backend a smaller window=…"
        return f"{self._who} refused the request{times} {said}"


def _passing(error: "APIStatusError") -> bool:
    """Whether it may go well another time."""
    return error.status_code >= 500 or (error.status_code == 429 and "insufficient_quota" not in (error.code, error.type))


def _wait(error: Exception, tries: int) -> float:
    """Seconds before the next try: what the server asks for, or twice as long each time."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = _seconds(headers.get("retry-after-ms"), 0.001) or _seconds(headers.get("retry-after"), 1.0)
    if asked is not None:
        return asked
    return min(FIRST_WAIT * 2.0 ** (tries - 1), LONGEST_WAIT)


def _seconds(header: str | None, unit: float) -> float | None:
    """A Retry-After header: a number, or a date."""
    if not header:
        return None
    with suppress(ValueError):
        return max(0.0, float(header) * unit)
    with suppress(ValueError, TypeError):
        then = email.utils.parsedate_to_datetime(header)
        return max(0.0, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time())
    return None


def _kind(stream: "AsyncStream[object] | None") -> str:
    """A hint where what came was no event stream at all."""
    kind = "" if stream is None else stream.response.headers.get("content-type", "")
    return "" if "event-stream" in kind else f", which was no event stream but {kind or 'untyped'}: is base_url an OpenAI-compatible API?"


def _unreachable(who: str, error: Exception, tries: int, *, begun: bool) -> BackendError:
    cause = error.__cause__ or error
    why = f"{cause}" or type(cause).__name__
    if begun:
        return BackendError(f"{who}: the connection broke in the middle of the reply: {why}")
    times = f", tried {tries} times" if tries > 1 else ""
    return BackendError(f"{who} could not be reached{times}: {why}. Check base_url and that the server is running")


def _failed(who: str, error: Exception) -> BackendError:
    from openai import APIError

    if type(error).__module__.startswith("httpx"):  # older releases of the openai package let it through
        return _unreachable(who, error, 1, begun=True)
    if isinstance(error, BadChunk):
        made = BackendError(f"{who} failed in the middle: {error}")
    elif isinstance(error, ValueError):
        made = BackendError(f"{who} sent what is no JSON: {error}")
    elif isinstance(error, APIError):
        made = BackendError(f"{who} failed in the middle: {words(error.body or error.message)}")
    else:
        made = BackendError(f"{who} failed: {error or type(error).__name__}")
    made.__cause__ = error
    return made
