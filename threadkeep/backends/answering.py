"""One answer, from the first of several backends that does not fail before it has said anything."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from threadkeep.backends.base import Backend, Event, Usage
from threadkeep.backends.prices import cost_of, price_for
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, InvalidSetting, MissingExtra, ModelUnavailable
from threadkeep.memory.money import Price

FAILURES = (BackendError, ModelUnavailable, MissingExtra, InvalidSetting)
"""After these the next backend is asked, as long as nothing was said."""
USUAL_REPLY = 1024
"""Tokens that a reply is taken for where nothing says how long it may get."""


@dataclass(frozen=True)
class Offer:
    """A backend that can take a request, with the context it is sent."""

    backend: Backend
    context: Context
    reason: str | None = None
    """Why it is this one's turn; None: there is no other."""

    @cached_property
    def price(self) -> Price | None:
        """What it charges; looked up where somebody asks."""
        return price_for(self.backend)

    @property
    def estimate(self) -> Decimal | None:
        """What the call may cost: the whole prompt uncached, the reply as long as the budget lets it get. None: the price is not known."""
        reply = self.context.max_tokens or USUAL_REPLY
        return None if self.price is None else cost_of(self.price, Usage(self.context.tokens, reply))


def answers(offers: Iterable[Offer], failed: Callable[[Offer, Exception], None]) -> Generator[tuple[Offer, Event], None, None]:
    """The first offer's events, or, where it fails before it has said anything, the next one's; `failed` hears of each that did.

    Events with a usage say its cost, where the price is known.

    Raises:
        BackendError: several failed. One alone raises its own error, as does one that had begun to speak.
    """
    errors: list[tuple[str, Exception]] = []
    for offer in offers:
        spoke = False
        events: Iterator[Event] = iter(())
        try:
            events = iter(offer.backend.stream(offer.context))
            for event in events:
                spoke = spoke or bool(event.text or event.tool_calls or event.finish)
                yield offer, _priced(event, offer)
            if spoke:
                return
            raise BackendError(f"{offer.backend.name} stopped without saying anything")
        except FAILURES as error:
            if spoke:
                raise
            failed(offer, error)
            errors.append((offer.backend.name, error))
        finally:
            stop = getattr(events, "close", None)
            if stop is not None:
                stop()
    if len(errors) == 1:
        raise errors[0][1]
    if errors:
        listed = "; ".join(f"{name}: {error}" for name, error in errors)
        raise BackendError(f"each of {len(errors)} candidates failed: {listed}") from errors[-1][1]


def _priced(event: Event, offer: Offer) -> Event:
    usage = event.usage
    if usage is None or usage.cost is not None or offer.price is None:
        return event
    return replace(event, usage=replace(usage, cost=cost_of(offer.price, usage)))
