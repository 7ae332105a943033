"""What model calls cost: a cap that is looked at before each, and the ledger's line after it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from threadkeep.backends.base import Usage
from threadkeep.backends.prices import cost_of, price_for
from threadkeep.memory.errors import InvalidSetting, SpendCapReached, StoreError
from threadkeep.memory.money import EXACT, dollars
from threadkeep.stores.ledger import NewCall
from threadkeep.stores.queries import SessionRow
from threadkeep.stores.sql import SQLStore

logger = logging.getLogger("threadkeep")


@dataclass(frozen=True, slots=True)
class SpendCap:
    """The most that model calls may cost, in US dollars; None: any amount.

    Before each call, what was spent and what the call may cost at most are held against it. Turns that run at the same moment do not
    know of each other: each may go over by its own call.

    Raises:
        InvalidSetting: an amount is none; or both are left open.
    """

    session: Decimal | None = None
    """For each session."""
    owner: Decimal | None = None
    """For all sessions of each owner together, deleted ones included."""

    def __post_init__(self) -> None:
        for name in ("session", "owner"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, dollars(getattr(self, name), f"SpendCap({name}=…)"))
        if self.session is None and self.owner is None:
            raise InvalidSetting('SpendCap() caps nothing: give session=Decimal("0.50"), owner=Decimal("20"), or both')


class Account:
    """Where the model calls of one session are paid."""

    def __init__(self, store: SQLStore, session: SessionRow, cap: SpendCap | None) -> None:
        self._store, self._session, self._cap = store, session, cap

    @property
    def capped(self) -> bool:
        return self._cap is not None

    def check(self, model: str, estimate: Decimal | None) -> None:
        """Whether a call may be made; one that costs nothing always may. `estimate`: what it may cost at most, None: nobody knows.

        Raises:
            SpendCapReached: it could go over a cap.
            InvalidSetting: there is a cap, and the price is not known.
        """
        if self._cap is None or estimate == 0:
            return
        if estimate is None:
            raise InvalidSetting(
                f"the price of {model} is not known, so no spend cap can be held: say it with Candidate(…, price=Price(…)), or as the "
                "backend's attribute `price`; FREE for a model on this machine"
            )
        self._hold(estimate)

    def check_spent(self) -> None:
        """Whether anything is left, for a call that the caller makes himself.

        Raises:
            SpendCapReached: nothing is.
        """
        self._hold(Decimal(0))

    def note(self, call: NewCall, turn_id: int | None = None) -> None:
        """Store a call's line. Where the store cannot, that is logged: the call was made, and stands."""
        try:
            self._store.add_call(self._session, call, turn_id)
        except StoreError as error:
            logger.warning("a call of %s (%s) is missing in the ledger: %s", call.model, call.purpose, error)

    def _hold(self, estimate: Decimal) -> None:
        if self._cap is None:
            return
        of_session, of_owner = self._store.spent(self._session)
        for whose, cap, spent in (("session", self._cap.session, of_session), ("owner", self._cap.owner, of_owner)):
            with localcontext(EXACT):
                after = spent + estimate
            if cap is not None and (after > cap or spent >= cap):
                raise SpendCapReached(whose, cap, spent, estimate)


def new_call(purpose: str, model: str, usage: Usage, outcome: str = "complete") -> NewCall:
    """A call's line in the ledger."""
    return NewCall(
        purpose,
        model,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        None if usage.first_token_ms is None else round(usage.first_token_ms),
        None if usage.total_ms is None else round(usage.total_ms),
        usage.cost,
        outcome,
    )


def embedding_call(embedder: object, tokens: int, began: float) -> NewCall:
    """The line of texts that were embedded since `began`, by `time.perf_counter`; `tokens`: what they take in a session, about."""
    price, ms = price_for(embedder), (time.perf_counter() - began) * 1000
    usage = Usage(tokens, 0, total_ms=ms)
    cost = None if price is None else cost_of(price, usage)
    return new_call("embedding", str(getattr(embedder, "name", "unknown")), replace(usage, cost=cost))


_paying: ContextVar[Account | None] = ContextVar("threadkeep_paying", default=None)


@contextmanager
def paid_by(account: Account) -> Iterator[None]:
    """Inside, `paying()` is this account: for what calls models deep inside other code, as a summariser does."""
    token = _paying.set(account)
    try:
        yield
    finally:
        _paying.reset(token)


def paying() -> Account | None:
    """Who pays for calls made here; None: nobody asked."""
    return _paying.get()
