"""One model call of a turn: its context, and the reply to it, event by event."""

import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from threadkeep.backends.answering import Offer, answers
from threadkeep.backends.base import Backend, Event, Usage
from threadkeep.backends.prices import cost_of
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError
from threadkeep.memory.message import Message
from threadkeep.memory.money import FREE
from threadkeep.memory.turn import Turn


class Asking:
    """A backend's reply to a held turn, as an iterator of events. `close` stops the model.

    Of several candidates the next one is asked where one fails before it has said anything; then it has its own context. `context`,
    `backend` and `route` are those of the one asked last.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._routing = turn.routing
        self._offer = turn.routing.first
        self._events = answers(self._offers(), self._failed)
        self._asked_at: float | None = None
        self._spoke = False
        self._over = False
        self._said: list[str] = []
        self._usage: Usage | None = None

    @property
    def context(self) -> Context:
        """What the model is sent."""
        return self._offer.context

    @property
    def backend(self) -> Backend:
        """Which backend answers."""
        return self._offer.backend

    @property
    def route(self) -> str | None:
        """Why that one; None where there was no choice."""
        return self._routing.why(self._offer)

    @property
    def usage(self) -> Usage | None:
        """What the call took: as the model said, or, where it was cut before it did, an estimate. None: nothing was asked yet."""
        if self._usage is not None or self._asked_at is None:
            return self._usage
        counter = self.backend.counter
        said = counter.count(Message.assistant("".join(self._said))).tokens - counter.count(Message.assistant("")).tokens
        usage = Usage(self.context.tokens, max(0, said), total_ms=_since(self._asked_at))
        return usage if self._offer.price is None else replace(usage, cost=cost_of(self._offer.price, usage))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            _, event = next(self._events)
        except BaseException:
            self._over = True
            raise
        self._spoke = self._spoke or bool(event.text or event.tool_calls or event.finish)
        if event.text:
            self._said.append(event.text)
        self._usage = event.usage or self._usage
        return event

    def close(self) -> None:
        """Stop the model; closing it twice is fine. A call that was left before anything was said gets its line in the ledger here."""
        left, self._over = not self._over, True
        self._events.close()
        if left and not self._spoke and self.usage is not None:
            self._turn.note(self.backend.name, self.usage, "interrupted")

    def _offers(self) -> Iterator[Offer]:
        for offer in self._turn.offers():
            self._offer, self._asked_at = offer, time.perf_counter()
            yield offer

    def _failed(self, offer: Offer, error: Exception) -> None:
        self._routing.failed(offer, error)
        if isinstance(error, BackendError) and self._asked_at is not None:  # otherwise no model was asked
            cost = Decimal(0) if offer.price == FREE else None
            self._turn.note(offer.backend.name, Usage(0, 0, total_ms=_since(self._asked_at), cost=cost), "failed")


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
