"""What a model call takes: heard from the model, or estimated where it was cut before the model said it."""

import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from threadkeep.backends.answering import Offer, answers
from threadkeep.backends.base import Backend, Event, Usage
from threadkeep.backends.prices import cost_of
from threadkeep.backends.router import Router
from threadkeep.memory.context import Context
from threadkeep.memory.message import Message
from threadkeep.memory.spending import new_call, paying


class Meter:
    """One model call as far as it has come. `offer`: who is asked."""

    def __init__(self) -> None:
        self.offer: Offer | None = None
        self.spoke = False
        """Whether anything was said."""
        self._began = 0.0
        self._said: list[str] = []
        self._usage: Usage | None = None

    def asks(self, offer: Offer) -> None:
        """The call begins, or begins anew with another."""
        self.offer, self._began = offer, time.perf_counter()

    def hears(self, event: Event) -> None:
        self.spoke = self.spoke or bool(event.text or event.tool_calls or event.finish)
        if event.text:
            self._said.append(event.text)
        self._usage = event.usage or self._usage

    @property
    def ms(self) -> float:
        """Since it began."""
        return (time.perf_counter() - self._began) * 1000

    @property
    def usage(self) -> Usage | None:
        """As the model said; before it did, an estimate. None: nobody was asked yet."""
        if self._usage is not None or self.offer is None:
            return self._usage
        counter = self.offer.backend.counter
        said = counter.count(Message.assistant("".join(self._said))).tokens - counter.count(Message.assistant("")).tokens
        usage = Usage(self.offer.context.tokens, max(0, said), total_ms=self.ms)
        return usage if self.offer.price is None else replace(usage, cost=cost_of(self.offer.price, usage))


def metered(backend: Backend, context: Context, purpose: str) -> Generator[Event, None, None]:
    """A backend's reply outside of a turn. Whoever pays here is asked before the call, and told what it took, cut ones too.

    Raises:
        SpendCapReached: the call could cost more than may be spent.
    """
    account, meter, ended = paying(), Meter(), False

    def checked(offers: Iterator[Offer]) -> Iterator[Offer]:
        for offer in offers:
            if account is not None and account.capped:
                account.check(offer.backend.name, offer.estimate)
            meter.asks(offer)
            yield offer

    offers = backend.fitting(context) if isinstance(backend, Router) else iter([Offer(backend, context)])
    try:
        for _, event in answers(checked(offers), lambda *_: None):
            meter.hears(event)
            yield event
        ended = True
    finally:
        if account is not None and meter.offer is not None and meter.usage is not None:
            account.note(new_call(purpose, meter.offer.backend.name, meter.usage, "complete" if ended else "interrupted"))
