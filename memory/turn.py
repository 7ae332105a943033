"""One turn: the lease on a session from the user's message to the reply, and the context in between.

Beginning appends the user's message, safe on disk before any model is called; finishing appends the reply, if the turn still holds the
lease. A turn that ends without a reply can be taken up again under the same key.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from threadkeep.backends.answering import Offer
from threadkeep.backends.base import Backend, Finish, Reply, Usage
from threadkeep.backends.prices import cost_of, price_of
from threadkeep.memory.completion import as_mapping, read_finish, read_model, read_usage
from threadkeep.memory.context import Context
from threadkeep.memory.errors import Conflict, InvalidMessage, InvalidSetting, LeaseLost
from threadkeep.memory.history import Entry, Status
from threadkeep.memory.holder import is_dead
from threadkeep.memory.leases import Lease, Takeover, keeper
from threadkeep.memory.manifest import text_of
from threadkeep.memory.message import JSON, Message, MessageLike, read_message
from threadkeep.memory.response_format import ResponseFormat
from threadkeep.memory.routing import Routing, assemble_for
from threadkeep.memory.setup import Setup
from threadkeep.memory.spending import new_call
from threadkeep.memory.waiting import WAIT_SECONDS, Policy, read_policy, waits
from threadkeep.stores.ledger import NewCall
from threadkeep.stores.rows import Prepared, encode
from threadkeep.stores.turns import Answered, Busy, Held
from threadkeep.strategies.base import Strategy

DRAFT_SECONDS = 1.0
"""How much of a reply a dying process may lose."""


class Turn:
    """One turn of a session, held: use it as a context manager. Made by `Session.turn`.

    Inside, `request` is what to send; `finish` stores the reply. `append` stores what comes in between (tool calls and results), after
    which `request` is assembled anew. Leaving without `finish` stores no reply: the same key takes the turn up again.
    """

    def __init__(
        self,
        setup: Setup,
        owner: str,
        name: str,
        message: MessageLike | None,
        *,
        key: str | None = None,
        tools: tuple[JSON, ...] = (),
        response_format: ResponseFormat | None = None,
        tool_choice: str | JSON | None = None,
        max_tokens: int | None = None,
        instructions: str | None = None,
        metadata: JSON | None = None,
        strategy: Strategy | None = None,
        policy: Policy = "wait",
        timeout: float = WAIT_SECONDS,
    ) -> None:
        self._setup = setup
        self._owner, self._name, self._key = owner, name, key
        self._message = None if message is None else read_message(message)
        if self._message is None and (key is not None or metadata is not None):
            raise InvalidSetting("a turn without a message answers the last one that is stored: it takes no key and no metadata")
        if self._message is not None and self._message.role != "user":
            raise InvalidSetting(f"a turn begins with a user's message, not with one of role {self._message.role!r}: use append()")
        self._metadata = metadata
        self.response_format = response_format
        """What the reply must be; None: any text."""
        self._options = {
            "tools": tools,
            "response_format": None if response_format is None else response_format.wire,
            "tool_choice": tool_choice,
            "max_tokens": max_tokens,
            "instructions": instructions,
            "strategy": strategy,
        }
        self._policy = read_policy(policy)
        self.patience = timeout if self._policy == "wait" else 0
        """Seconds to wait for another turn of the session."""
        self.lease = Lease(setup.store)
        self._reply: Reply | None = None
        self._routing: Routing | None = None
        self._context: Context | None = None
        self._embedding: NewCall | None = None
        self._unsaved: dict[str, object] = {}
        self._texts: dict[str, bytes] = {}
        self._named: dict[str, bytes] = {}
        self._draft_saved = 0.0
        self._replaced: frozenset[int] = frozenset()
        self.id: int | None = None
        """The turn's number in its session, from 1; None before it began."""

    def __enter__(self) -> Self:
        prepared = self.prepare()
        for pause in waits(self.patience, lambda: self.id):
            if self.try_begin(prepared):
                return self
            time.sleep(pause)
        raise self.still_busy()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def prepare(self) -> Prepared | None:
        """The user's message, ready to be stored; None where one is answered that is."""
        if self._message is None:
            return None
        prepared, self._embedding = self._setup.prepare_user(self._message, self._metadata)
        return prepared

    def try_begin(self, prepared: Prepared | None) -> bool:
        """Begin the turn if nobody else holds the session, or if it may be taken from him; whether it began."""
        keeper.hold(self.lease)  # before it is known to others
        try:
            with Takeover() as takeover:
                begun = self._setup.store.begin_turn(
                    self._owner,
                    self._name,
                    prepared,
                    key=self._key,
                    holder=self.lease.holder,
                    tokenizer=self._setup.counting.name,
                    is_dead=is_dead,
                    settle_draft=self._setup.prepare_draft,
                    supersede=takeover if self._policy == "supersede" else None,
                    call=self._embedding,
                )
                self.id = begun.turn_id
                if isinstance(begun, Held):
                    self.lease.begin(begun)
                    takeover.done(begun)
            if isinstance(begun, Answered):
                self._reply = replace(_reply_of(begun.reply), parsed=self._parsed(begun.reply.message))
            elif isinstance(begun, Held):
                self._begin(begun)
        except BaseException:
            self.release()
            raise
        finally:
            if self.lease.held is None:
                keeper.let_go(self.lease)
        return not isinstance(begun, Busy)

    def _begin(self, held: Held) -> None:
        self._draft_saved = time.monotonic()
        if held.retried:
            with self._setup.store.history_of(held.session) as history:
                said = history.between(held.user.seq + 1, held.session.head.seq)
            self._replaced = frozenset(entry.seq for entry in said if entry.status == "interrupted")

    def still_busy(self) -> Conflict:
        """The error for having waited in vain, or not at all."""
        held = f"session {self._name!r} is held by turn {self.id}"
        if self._policy == "reject":
            return Conflict(f"{held}, and policy='reject' waits for none: wait for it (policy='wait'), or take the session ('supersede')")
        return Conflict(
            f"{held}, and {self.patience:g} s of waiting have passed: "
            "try again, or wait longer (timeout=…). Within a turn, append with turn.append()"
        )

    @property
    def held(self) -> Held:
        """The lease.

        Raises:
            Conflict: the turn has not begun, or is over.
        """
        if self.lease.held is None:
            raise Conflict("the turn is not held: use it inside `with session.turn(…) as turn:`, and finish it once")
        return self.lease.held

    @property
    def superseded(self) -> bool:
        """Whether another has taken the session from this turn: nothing more of it is stored, and what is written raises `LeaseLost`.

        Asks no database: it is known at once where the other is of this process, otherwise within about a second.
        """
        return self.lease.lost is not None

    @property
    def user(self) -> Entry:
        """The user's message as stored."""
        return self.held.user

    @property
    def reply(self) -> Reply | None:
        """The reply, once there is one; at once where the same key was answered before."""
        return self._reply

    @property
    def context(self) -> Context:
        """What to send to the model, assembled when first asked for, and again after `append`. Of several models, the one asked last.

        Raises:
            CannotFit: no valid context exists within the budget.
            SpendCapReached: the call could cost more than may be spent.
            LeaseLost: another has taken the session.
        """
        self.lease.check()
        if self._context is not None:
            return self._context
        if self._setup.has_backend:
            return self._sends(self.routing.first.context)
        self._setup.account(self.held.session).check_spent()
        return self._sends(self._assembled(None))

    @property
    def routing(self) -> Routing:
        """Who may answer."""
        held = self.held
        if self._routing is None:
            asked = {"messages": [held.user.raw], "tokens": held.session.head.tokens}
            asked |= {name: self._options[name] for name in ("tools", "response_format", "tool_choice")}
            asked["max_tokens"] = self._options["max_tokens"] or self._setup.budget.reply
            self._routing = Routing(self._setup.backend, asked, self._assembled, self._setup.account(held.session))
        return self._routing

    def offers(self) -> Iterator[Offer]:
        """Who is asked, in order, each with its context, which from then on is the turn's."""
        for offer in self.routing.offers():
            self._sends(offer.context)
            yield offer

    def note(self, model: str, usage: Usage, outcome: str) -> None:
        """Store the ledger's line of a call that came to nothing."""
        if self.lease.held is not None:
            self._setup.account(self.lease.held.session).note(new_call("reply", model, usage, outcome), self.id)

    def _assembled(self, backend: Backend | None) -> Context:
        """The context for a backend: the memory's own, or one of several."""
        held = self.held
        request = self._setup.request(
            held.session,
            held.previous,
            replaced=self._replaced,
            backend=backend,
            **self._options,  # type: ignore[arg-type]
        )
        self._named = dict(map(text_of, (request.instructions, [request.tools, request.response_format])))
        with self._setup.store.history_of(held.session, model=self._setup.model) as history:
            return assemble_for(backend, history, request)

    def _sends(self, context: Context) -> Context:
        """Take note of what is sent, for the turn's record."""
        if context is not self._context:
            self._context = context
            self._unsaved["manifest"] = encode(context.manifest)
            self._texts = self._named
        return context

    @property
    def messages(self) -> list[dict[str, object]]:
        """The context's messages, in OpenAI's format."""
        return self.context.messages

    @property
    def request(self) -> dict[str, Any]:  # Any: a client's own types decide
        """Arguments for `client.chat.completions.create(model=…, **turn.request)`."""
        return self.context.request

    def append(self, *messages: MessageLike) -> list[Entry]:
        """Store what comes before the reply: calls of tools, and their results."""
        read = [read_message(message, place=f"messages[{at}]", role="assistant") for at, message in enumerate(messages)]
        return list(
            self._append([self._setup.prepare(message, place=f"messages[{at}]") for at, message in enumerate(read)], {"draft": None})
        )

    def choose_tool(self, tool_choice: str | JSON | None) -> None:
        """Ask with another `tool_choice` from now on."""
        self._options["tool_choice"] = tool_choice
        self._routing = self._context = None

    def record(self, message: Message, usage: Usage | None, model: str) -> Entry:
        """Store a reply that calls tools, with its line in the ledger; the turn goes on."""
        (entry,) = self._append([self._setup.prepare(message)], {"draft": None}, None if usage is None else new_call("reply", model, usage))
        return entry

    def draft(self, text: str) -> None:
        """Save what was said so far, if the last saving is about a second ago. A dead process loses no more than that.

        Raises:
            LeaseLost: another has taken the session, by `policy="supersede"` or after the lease had ended: stop.
        """
        said = Message.assistant(text)
        self.lease.says(lambda: said)
        self.save_draft(lambda: said)

    def save_draft(self, said: Callable[[], Message]) -> None:
        """The same with a message, made only when it is saved."""
        if time.monotonic() - self._draft_saved >= DRAFT_SECONDS:
            self._write({"draft": encode(said().to_dict())})
            self._draft_saved = time.monotonic()

    def finish(self, reply: MessageLike, *, usage: Usage | None = None) -> Reply:
        """Store the reply and end the turn. `reply` may be a whole completion: then its usage is kept in the ledger.

        Raises:
            LeaseLost: another holder took the session; nothing was written.
            InvalidMessage: it is no message.
            InvalidSetting: it is no assistant's message, or `usage` is no `Usage`.
        """
        message = read_message(reply, place="reply", role="assistant")
        if message.role != "assistant":
            raise InvalidSetting(f"a reply is an assistant's message, not one of role {message.role!r}")
        if not isinstance(usage, Usage | None):
            raise InvalidSetting(f"finish(usage={usage!r:.80}): a Usage, or None")
        completion = as_mapping(reply)
        usage, model = usage or read_usage(completion), read_model(completion)
        if usage is not None and usage.cost is None and (price := price_of(model)) is not None:
            usage = replace(usage, cost=cost_of(price, usage))
        return self.end(message, "complete", usage, read_finish(completion), model, self._parsed(message))

    def end(
        self,
        message: Message,
        status: Status,
        usage: Usage | None,
        finish: Finish | None,
        model: str,
        parsed: object = None,
        route: str | None = None,
    ) -> Reply:
        """Store a reply, whole or cut, and end the turn."""
        state = "done" if status == "complete" else "interrupted"
        call = None if usage is None else new_call("reply", model, usage, "complete" if status == "complete" else "interrupted")
        prepared = self._setup.prepare(message, status=status, place="reply")
        # where storing it fails, ending the turn keeps it, and what it shows with it
        self._unsaved["draft"] = encode(message.to_dict()) if prepared.attached else prepared.body
        try:
            (entry,) = self._append([prepared], {"state": state, "draft": None}, call)
        except InvalidMessage:
            del self._unsaved["draft"]  # as it is, nothing can store it
            raise
        self.lease.let_go()
        self._setup.upkeep.notify(self._owner, self._name)
        self._reply = Reply(
            prepared.message, entry.seq, "complete" if status == "complete" else "interrupted", usage, finish, parsed, route
        )
        return self._reply

    def release(self) -> None:
        """End the turn without a reply, if it is still held; a saved draft becomes an interrupted entry."""
        held = self.lease.let_go()
        if held is not None:
            if not self.superseded:
                with suppress(LeaseLost):  # whoever took the session has ended this turn
                    self._setup.store.release_turn(held, self._unsaved, self._texts, self._setup.prepare_draft)
            self._setup.upkeep.notify(self._owner, self._name)

    def _append(self, prepared: Sequence[Prepared], values: JSON, call: NewCall | None = None) -> Sequence[Entry]:
        held = self.held
        with self.lease.writing():
            added = self._setup.store.append_to_turn(held, prepared, {**self._unsaved, **values}, self._texts, call)
        self.lease.stored(replace(held, session=added.session))
        self._routing, self._context, self._unsaved, self._texts = None, None, {}, {}
        return added.entries

    def _write(self, values: JSON) -> None:
        with self.lease.writing():
            self._setup.store.write_turn(self.held, {**self._unsaved, **values}, self._texts)
        self._unsaved, self._texts = {}, {}

    def _parsed(self, message: Message) -> object:
        """The value that a reply says, where one was asked for and it can be read."""
        return None if self.response_format is None else self.response_format.parsed(message.text)


def _reply_of(entry: Entry) -> Reply:
    return Reply(entry.message, entry.seq, "interrupted" if entry.status == "interrupted" else "complete")
