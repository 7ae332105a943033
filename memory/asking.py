"""One model call of a turn: its context, and the reply to it, event by event."""

from collections.abc import Iterator
from decimal import Decimal

from threadkeep.backends.answering import Offer, answers
from threadkeep.backends.base import Backend, Event, Usage
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError
from threadkeep.memory.metering import Meter
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
        self._first = turn.routing.first
        self._meter = Meter()
        self._events = answers(self._offers(), self._failed)
        self._over = False

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
        return self._meter.usage

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            _, event = next(self._events)
        except BaseException:
            self._over = True
            raise
        self._meter.hears(event)
        return event

    def close(self) -> None:
        """Stop the model; closing it twice is fine. A call that was left before anything was said gets its line in the ledger here."""
        left, self._over = not self._over, True
        self._events.close()
        if left and not self._meter.spoke and self.usage is not None:
            self._turn.note(self.backend.name, self.usage, "interrupted")

    @property
    def _offer(self) -> Offer:
        return self._meter.offer or self._first

    def _offers(self) -> Iterator[Offer]:
        for offer in self._turn.offers():
            self._meter.asks(offer)
            yield offer

    def _failed(self, offer: Offer, error: Exception) -> None:
        self._routing.failed(offer, error)
        if isinstance(error, BackendError):  # otherwise no model was asked
            cost = Decimal(0) if offer.price == FREE else None
            self._turn.note(offer.backend.name, Usage(0, 0, total_ms=self._meter.ms, cost=cost), "failed")
