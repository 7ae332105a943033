"""A session's handle: what its users call. It does no I/O until it is used; the session exists from its first append."""

import time
from collections.abc import Sequence
from datetime import datetime

from threadkeep.backends.base import Backend, Reply
from threadkeep.memory.branching import Branching
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import Conflict, InvalidSetting
from threadkeep.memory.history import Entry
from threadkeep.memory.holder import is_dead
from threadkeep.memory.message import JSON, MessageLike, read_message
from threadkeep.memory.reading import Reading
from threadkeep.memory.replay import replay
from threadkeep.memory.response_format import Format, read_format
from threadkeep.memory.routing import Routing, assemble_for
from threadkeep.memory.setup import Setup
from threadkeep.memory.stream import Stream
from threadkeep.memory.tool_loop import MOST_ROUNDS, Approve, Rounds
from threadkeep.memory.tools import Toolbox
from threadkeep.memory.turn import Turn
from threadkeep.memory.upkeep import Upkept
from threadkeep.memory.waiting import WAIT_SECONDS, Policy, waits
from threadkeep.stores.appending import Appended
from threadkeep.stores.rows import Prepared
from threadkeep.stores.sql import check_name
from threadkeep.stores.turns import Busy
from threadkeep.strategies.base import Strategy


class Session(Branching, Reading):
    """One conversation of one owner. Made by `Memory.session`; any number of handles may name the same one."""

    def __init__(self, setup: Setup, name: str, owner: str, instructions: str | None = None) -> None:
        self._setup = setup
        self.name = check_name(name, "a session's name")
        self.owner = check_name(owner, "an owner")
        self._instructions = instructions

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, owner={self.owner!r})"

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
    ) -> Turn:
        """A turn that the caller answers with a client of his own: `with session.turn(text) as turn: … turn.finish(reply)`.

        Args:
            message: the user's; None: the last one that is stored is answered anew, as `regenerate` does it.
            key: names the turn: sent again, it is the same turn, and a finished one gives its reply at once.
            tools: functions, pydantic models and dicts in OpenAI's format, in any mixture; counted, and part of `turn.request`.
            response_format: a dict in OpenAI's format, or a pydantic model class; `reply.parsed` is the value.
            tool_choice: `auto`, `none`, `required`, or a tool's name, alone or in OpenAI's dict.
            max_tokens: kept free for the reply, in place of the budget's share.
            instructions: in place of the session's.
            metadata: kept with the user's message, as `append` does.
            strategy: in place of the memory's.
            policy: what to do while another turn holds the session: `wait` for it, `reject` this one at once, or `supersede` the other:
                take the session from it, what it had said being stored as interrupted; where it has the same key, take it up again.
            timeout: seconds to wait for another turn of this session; 0 does not wait. The other policies never wait.

        Raises (on entering):
            NotFound: without a message, there is none that is stored.
            Conflict: another turn held the session for all that time.
            KeyReused: the key came before with another message.
        """
        toolbox = Toolbox(tools)
        return Turn(
            self._setup,
            self.owner,
            self.name,
            message,
            key=None if key is None else check_name(key, "a key"),
            tools=toolbox.schemas,
            response_format=read_format(response_format),
            tool_choice=toolbox.choose(tool_choice),
            max_tokens=max_tokens,
            instructions=self._instructions if instructions is None else instructions,
            metadata=metadata,
            strategy=strategy,
            policy=policy,
            timeout=timeout,
        )

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
    ) -> Stream:
        """A turn that the backend answers, event by event: `with session.stream(text) as stream: for event in stream: …`.

        Leaving early stores what was said, as interrupted. Where the model calls functions of `tools`, they are run, each step is stored,
        and the model is asked again; a call of a tool that is no function ends the turn, and the calls are the caller's.

        Args (the others as for `turn`):
            approve: asked before a function runs: a function of a `ToolCall` that gives True, False, or a text that the model is told in
                place of a result.
            max_rounds: how often the model may call functions; after that it is asked once more, and may call none.

        Raises (while it is read):
            Superseded: another turn took the session, with `policy="supersede"`.
            Truncated: the reply was cut by `max_tokens` inside what `response_format` asks for, or before its first word.
            InvalidReply: the reply is not what `response_format` asks for.
        """
        toolbox = Toolbox(tools)
        rounds = Rounds(toolbox, toolbox.choose(tool_choice), approve, max_rounds)
        turn = self.turn(
            message,
            key=key,
            tools=toolbox.schemas,
            response_format=response_format,
            tool_choice=tool_choice,
            max_tokens=max_tokens,
            instructions=instructions,
            metadata=metadata,
            policy=policy,
            timeout=timeout,
        )
        _ = self._setup.backend  # where there is none, that is said before anything is stored
        return Stream(turn, rounds)

    def chat(
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
        """A turn that the backend answers, as one reply. Arguments as for `stream`."""
        with self.stream(
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
            for _ in stream:
                pass
        return stream.reply

    def regenerate(
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
        """Answer the last user's message anew: `chat(None)`. An answer that it has stays on its branch, and is not shown to the model."""
        return self.chat(
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

    def context(
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
        as_of: int | Turn | None = None,
    ) -> Context:
        """The context as if this message came next, or of the log as it is; stores nothing. Of several models, the one asked first.

        Args:
            message: the user's; None: the log as it is.
            tools: as for `turn`.
            response_format: as for `turn`.
            tool_choice: as for `turn`.
            max_tokens: as for `turn`.
            instructions: as for `turn`.
            strategy: as for `turn`.
            budget: in place of the memory's.
            as_of: a turn, or its number: the context that this turn was sent, made again from its record.

        Raises:
            CannotFit: no valid context exists within the budget.
            NotFound: `as_of` names no turn that has a context.
        """
        if as_of is not None:
            if message is not None:
                raise InvalidSetting("context(as_of=…) makes a past context again: it takes no message")
            turn_id = as_of if isinstance(as_of, int) else as_of.id
            if turn_id is None:
                raise InvalidSetting("context(as_of=turn): that turn has not begun")
            return replay(self._setup.store, self.owner, self.name, turn_id)
        toolbox, wanted = Toolbox(tools), read_format(response_format)
        supposed = None if message is None else self._setup.embed(self._setup.prepare(read_message(message)))
        schemas, form, choice = toolbox.schemas, None if wanted is None else wanted.wire, toolbox.choose(tool_choice)
        with self._setup.store.history(self.owner, self.name, supposed, model=self._setup.model) as (history, row, newest):

            def assembled(backend: Backend | None) -> Context:
                request = self._setup.request(
                    row,
                    newest,
                    instructions=self._instructions if instructions is None else instructions,
                    tools=schemas,
                    response_format=form,
                    tool_choice=choice,
                    max_tokens=max_tokens,
                    strategy=strategy,
                    budget=budget,
                    backend=backend,
                )
                return assemble_for(backend, history, request)

            if not self._setup.has_backend:
                return assembled(None)
            asked = {"messages": [history.live.raw] if history.live else [], "tokens": history.head.tokens, "tools": schemas}
            asked |= {"response_format": form, "tool_choice": choice, "max_tokens": max_tokens or (budget or self._setup.budget).reply}
            return Routing(self._setup.backend, asked, assembled, None).first.context

    def append(
        self,
        *messages: MessageLike,
        key: str | None = None,
        created_at: datetime | None = None,
        metadata: JSON | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> list[Entry]:
        """Store messages outside of a turn, all or none: an import, or a conversation that was held elsewhere.

        Args:
            *messages: in any of the forms that a message may have.
            key: names the batch: sent again, nothing is written twice.
            created_at: when they were said, with a time zone; now, where none is given.
            metadata: kept with each of them; its `tags`, a list of texts of up to 64 characters, and its `importance`, a number, are what
                `Selective` chooses by.
            timeout: seconds to wait while a turn holds the session.

        Raises:
            Conflict: a turn held the session for all that time.
            KeyReused: the key came before with other content.
        """
        prepared = self.prepare(messages, created_at, metadata)
        if not prepared:
            return []
        for pause in waits(timeout):
            added = self.try_append(prepared, key)
            if isinstance(added, Appended):
                return list(added.entries)
            time.sleep(pause)
        raise self.still_held(timeout)

    def prepare(self, messages: Sequence[MessageLike], created_at: datetime | None, metadata: JSON | None) -> list[Prepared]:
        """Messages ready to be stored, all read before any is."""
        read = [read_message(message, place=f"messages[{at}]") for at, message in enumerate(messages)]
        return [
            self._setup.prepare(message, created_at=created_at, metadata=metadata, place=f"messages[{at}]")
            for at, message in enumerate(read)
        ]

    def try_append(self, prepared: Sequence[Prepared], key: str | None) -> Appended | Busy:
        """Append if no turn holds the session."""
        added = self._setup.store.append(
            self.owner,
            self.name,
            prepared,
            key=None if key is None else check_name(key, "a key"),
            tokenizer=self._setup.counting.name,
            is_dead=is_dead,
            settle_draft=self._setup.prepare_draft,
        )
        if isinstance(added, Appended):
            self._setup.upkeep.notify(self.owner, self.name)
        return added

    def still_held(self, timeout: float) -> Conflict:
        """The error for having waited in vain."""
        return Conflict(f"a turn held session {self.name!r} for {timeout:g} s: within that turn, append with turn.append()")

    def pin(self, seq: int) -> None:
        """Keep an entry in every later context.

        Raises:
            NotFound: there is no such session or entry.
            InvalidSetting: the entry is late, so no context shows it.
        """
        if not isinstance(seq, int):
            raise InvalidSetting(f"pin({seq!r:.80}): an entry's seq")
        self._setup.store.pin(self.owner, self.name, seq)

    def upkeep(self) -> list[Upkept]:
        """Make the session's summaries and vectors that are due, now, and say what became of each job.

        Nothing is raised for a job that fails; it is tried again in the background, and the next time this is called.

        Raises:
            NotFound: there is no such session.
        """
        return self._setup.upkeep.session(self.owner, self.name)

    def delete(self) -> None:
        """Delete the session with everything that belongs to it.

        Raises:
            NotFound: there is no such session.
        """
        self._setup.store.delete_session(self.owner, self.name)
