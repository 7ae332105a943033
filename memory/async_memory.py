"""The async twins of `Memory` and `Session`: the same calls, run on as many threads as the store has connections."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from threadkeep.backends.base import Backend, Reply
from threadkeep.embedders.base import Embedder
from threadkeep.memory.async_turn import AsyncStream, AsyncTurn
from threadkeep.memory.blob import Blob
from threadkeep.memory.branch import Branch
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.history import Entry
from threadkeep.memory.index import Scope
from threadkeep.memory.memory import OWNER, Memory
from threadkeep.memory.message import JSON, ImagePart, MessageLike
from threadkeep.memory.response_format import Format
from threadkeep.memory.searching import Found
from threadkeep.memory.session import Session
from threadkeep.memory.spending import SpendCap
from threadkeep.memory.threads import Threads
from threadkeep.memory.tokens import TokenCounter
from threadkeep.memory.tool_loop import MOST_ROUNDS, Approve
from threadkeep.memory.upkeep import Upkept
from threadkeep.memory.waiting import WAIT_SECONDS, Policy, waits
from threadkeep.stores.appending import Appended
from threadkeep.stores.ledger import CallRow, Used
from threadkeep.stores.pools import threads_for
from threadkeep.stores.queries import Listed
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.turns import Busy
from threadkeep.strategies.base import Strategy

Done = TypeVar("Done")


class AsyncSession:
    """`Session` for async code. Made by `AsyncMemory.session`."""

    def __init__(self, session: Session, threads: Threads) -> None:
        self._session = session
        self._threads = threads

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, owner={self.owner!r})"

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def owner(self) -> str:
        return self._session.owner

    def turn(
        self,
        message: MessageLike | None,
        *,
        key: str | None = None,
        tools: Sequence[object] | None = None,
        response_format: Format | None = None,
        tool_choice: str | JSON | None = None,
        max_tokens: int | None = None,
        instructions: str | None = None,
        metadata: JSON | None = None,
        strategy: Strategy | None = None,
        policy: Policy = "wait",
        timeout: float = WAIT_SECONDS,
    ) -> AsyncTurn:
        """`Session.turn`: `async with session.turn(text) as turn: … await turn.finish(reply)`."""
        turn = self._session.turn(
            message,
            key=key,
            tools=tools,
            response_format=response_format,
            tool_choice=tool_choice,
            max_tokens=max_tokens,
            instructions=instructions,
            metadata=metadata,
            strategy=strategy,
            policy=policy,
            timeout=timeout,
        )
        return AsyncTurn(turn, self._threads)

    def stream(
        self,
        message: MessageLike | None,
        *,
        key: str | None = None,
        tools: Sequence[object] | None = None,
        response_format: Format | None = None,
        tool_choice: str | JSON | None = None,
        approve: Approve | None = None,
        max_rounds: int = MOST_ROUNDS,
        max_tokens: int | None = None,
        instructions: str | None = None,
        metadata: JSON | None = None,
        policy: Policy = "wait",
        timeout: float = WAIT_SECONDS,
    ) -> AsyncStream:
        """`Session.stream`: `async with session.stream(text) as stream: async for event in stream: …`."""
        stream = self._session.stream(
            message,
            key=key,
            tools=tools,
            response_format=response_format,
            tool_choice=tool_choice,
            approve=approve,
            max_rounds=max_rounds,
            max_tokens=max_tokens,
            instructions=instructions,
            metadata=metadata,
            policy=policy,
            timeout=timeout,
        )
        return AsyncStream(stream, AsyncTurn(stream.turn, self._threads))

    async def chat(
        self,
        message: MessageLike | None,
        *,
        key: str | None = None,
        tools: Sequence[object] | None = None,
        response_format: Format | None = None,
        tool_choice: str | JSON | None = None,
        approve: Approve | None = None,
        max_rounds: int = MOST_ROUNDS,
        max_tokens: int | None = None,
        instructions: str | None = None,
        metadata: JSON | None = None,
        policy: Policy = "wait",
        timeout: float = WAIT_SECONDS,
    ) -> Reply:
        """`Session.chat`."""
        async with self.stream(
            message,
            key=key,
            tools=tools,
            response_format=response_format,
            tool_choice=tool_choice,
            approve=approve,
            max_rounds=max_rounds,
            max_tokens=max_tokens,
            instructions=instructions,
            metadata=metadata,
            policy=policy,
            timeout=timeout,
        ) as stream:
            async for _ in stream:
                pass
        return stream.reply

    async def regenerate(
        self,
        *,
        tools: Sequence[object] | None = None,
        response_format: Format | None = None,
        tool_choice: str | JSON | None = None,
        approve: Approve | None = None,
        max_rounds: int = MOST_ROUNDS,
        max_tokens: int | None = None,
        instructions: str | None = None,
        policy: Policy = "wait",
        timeout: float = WAIT_SECONDS,
    ) -> Reply:
        """`Session.regenerate`."""
        return await self.chat(
            None,
            tools=tools,
            response_format=response_format,
            tool_choice=tool_choice,
            approve=approve,
            max_rounds=max_rounds,
            max_tokens=max_tokens,
            instructions=instructions,
            policy=policy,
            timeout=timeout,
        )

    async def context(
        self,
        message: MessageLike | None = None,
        *,
        tools: Sequence[object] | None = None,
        response_format: Format | None = None,
        tool_choice: str | JSON | None = None,
        max_tokens: int | None = None,
        instructions: str | None = None,
        strategy: Strategy | None = None,
        budget: Budget | None = None,
        as_of: int | AsyncTurn | None = None,
    ) -> Context:
        """`Session.context`."""
        return await self._threads.run(
            lambda: self._session.context(
                message,
                tools=tools,
                response_format=response_format,
                tool_choice=tool_choice,
                max_tokens=max_tokens,
                instructions=instructions,
                strategy=strategy,
                budget=budget,
                as_of=as_of._turn if isinstance(as_of, AsyncTurn) else as_of,
            )
        )

    async def append(
        self,
        *messages: MessageLike,
        key: str | None = None,
        created_at: datetime | None = None,
        metadata: JSON | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> list[Entry]:
        """`Session.append`; the wait for a turn takes no thread."""
        prepared = await self._threads.run(lambda: self._session.prepare(messages, created_at, metadata))
        if not prepared:
            return []
        for pause in waits(timeout):
            added = await self._threads.run(lambda: self._session.try_append(prepared, key))
            if isinstance(added, Appended):
                return list(added.entries)
            await asyncio.sleep(pause)
        raise self._session.still_held(timeout)

    async def fork(self, name: str, *, at: int | None = None, timeout: float = WAIT_SECONDS) -> Branch:
        """`Session.fork`; the wait for a turn takes no thread."""
        return await self._when_free(self._session.to_fork(name, at), timeout)

    async def edit(
        self, seq: int, message: MessageLike, *, name: str | None = None, metadata: JSON | None = None, timeout: float = WAIT_SECONDS
    ) -> Entry:
        """`Session.edit`; the wait for a turn takes no thread."""
        return await self._when_free(await self._threads.run(lambda: self._session.to_edit(seq, message, name, metadata)), timeout)

    async def switch(self, name: str, *, timeout: float = WAIT_SECONDS) -> Branch:
        """`Session.switch`; the wait for a turn takes no thread."""
        return await self._when_free(self._session.to_switch(name), timeout)

    async def branches(self, after: str | None = None, limit: int = 100) -> list[Branch]:
        """`Session.branches`."""
        return await self._threads.run(lambda: self._session.branches(after, limit))

    async def _when_free(self, work: Callable[[], Done | Busy], timeout: float) -> Done:
        for pause in waits(timeout):
            done = await self._threads.run(work)
            if not isinstance(done, Busy):
                return done
            await asyncio.sleep(pause)
        raise self._session.never_free(timeout)

    async def entries(self, after: int = 0, limit: int = 100, *, branch: str | None = None) -> list[Entry]:
        """`Session.entries`."""
        return await self._threads.run(lambda: self._session.entries(after, limit, branch=branch))

    async def blob(self, blob: Blob | ImagePart | str) -> bytes:
        """`Session.blob`."""
        return await self._threads.run(lambda: self._session.blob(blob))

    async def search(self, text: str, k: int = 10, *, scope: Scope = "session") -> list[Found]:
        """`Session.search`."""
        return await self._threads.run(lambda: self._session.search(text, k, scope=scope))

    async def pin(self, seq: int) -> None:
        """`Session.pin`."""
        await self._threads.run(lambda: self._session.pin(seq))

    async def calls(self, after: int = 0, limit: int = 100) -> list[CallRow]:
        """`Session.calls`."""
        return await self._threads.run(lambda: self._session.calls(after, limit))

    async def upkeep(self) -> list[Upkept]:
        """`Session.upkeep`, on a thread beside those of the turns: it may take minutes."""
        return await asyncio.to_thread(self._session.upkeep)

    async def delete(self) -> None:
        """`Session.delete`."""
        await self._threads.run(self._session.delete)


class AsyncMemory:
    """`Memory` for async code, for any number of workers and event loops."""

    def __init__(
        self,
        store: str | URL | Engine | SQLStore,
        *,
        backend: Backend | None = None,
        strategy: Strategy | None = None,
        budget: Budget | None = None,
        counter: TokenCounter | None = None,
        embedder: Embedder | None = None,
        instructions: str | None = None,
        upkeep: bool = True,
        spend_cap: SpendCap | None = None,
    ) -> None:
        self._memory = Memory(
            store,
            backend=backend,
            strategy=strategy,
            budget=budget,
            counter=counter,
            embedder=embedder,
            instructions=instructions,
            upkeep=upkeep,
            spend_cap=spend_cap,
        )
        self._threads = Threads(threads_for(self._memory.store.engine.pool))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def store(self) -> SQLStore:
        """Where the sessions are kept."""
        return self._memory.store

    def session(self, name: str, *, owner: str = OWNER, instructions: str | None = None) -> AsyncSession:
        """`Memory.session`; no I/O."""
        return AsyncSession(self._memory.session(name, owner=owner, instructions=instructions), self._threads)

    async def sessions(self, *, owner: str = OWNER, after: str | None = None, limit: int = 100) -> list[Listed]:
        """`Memory.sessions`."""
        return await self._threads.run(lambda: self._memory.sessions(owner=owner, after=after, limit=limit))

    async def usage(self, *, owner: str = OWNER, session: str | None = None) -> list[Used]:
        """`Memory.usage`."""
        return await self._threads.run(lambda: self._memory.usage(owner=owner, session=session))

    async def delete_owner(self, owner: str) -> int:
        """`Memory.delete_owner`."""
        return await self._threads.run(lambda: self._memory.delete_owner(owner))

    async def upkeep(self, *, owner: str | None = None) -> list[Upkept]:
        """`Memory.upkeep`, on a thread beside those of the turns."""
        return await asyncio.to_thread(lambda: self._memory.upkeep(owner=owner))

    async def close(self) -> None:
        """`Memory.close`, once the running work is done."""
        await asyncio.to_thread(self._threads.close)
        await asyncio.to_thread(self._memory.close)
