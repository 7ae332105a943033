"""Who may answer a model call, one after the other, each with its own context."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from threadkeep.backends.answering import FAILURES, Offer
from threadkeep.backends.base import Backend
from threadkeep.backends.candidate import Candidate
from threadkeep.backends.router import NEWEST, Router, has_picture
from threadkeep.memory.assemble import Request, assemble
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, CannotFit, NoCandidate, SpendCapReached, ThreadkeepError
from threadkeep.memory.filling import filled
from threadkeep.memory.message import JSON
from threadkeep.memory.money import shown
from threadkeep.memory.spending import Account
from threadkeep.stores.history import SQLHistory


class Routing:
    """The offers of one model call, made one by one, and why it went to whom it went.

    Args:
        backend: a router, or one that answers alone.
        request: as `Router.candidates` is asked.
        assemble: the context for a candidate; it may raise `CannotFit`.
        account: what may be spent; None: nothing is, because nobody will be asked.
    """

    def __init__(self, backend: Backend, request: JSON, assemble: Callable[[Backend], Context], account: Account | None) -> None:
        self._backend, self._request, self._assemble, self._account = backend, request, assemble, account
        self._passed: list[str] = []
        self._offers = self._made()

    @cached_property
    def first(self) -> Offer:
        """Who is asked first. Raises as `offers` does."""
        return next(self._offers)

    def offers(self) -> Iterator[Offer]:
        """Who is asked, in order, once.

        Raises:
            CannotFit: no candidate's context fits.
            SpendCapReached: what fits costs too much.
            NoCandidate: none has what the request needs.
            BackendError: none could be asked.
        """
        yield self.first
        yield from self._offers

    def _made(self) -> Iterator[Offer]:
        if isinstance(self._backend, Router):
            route = self._backend.route(self._request)
            yield from self._each(route.candidates, route.reason)
            return
        candidates = self._backend.candidates(self._request)
        if len(candidates) == 1:
            yield self._offer(candidates[0], None)
        else:
            yield from self._each(candidates, "")

    def failed(self, offer: Offer, error: Exception) -> None:
        """Take note that the one asked said nothing."""
        self._passed.append(f"{offer.backend.name} failed: {error}")

    def why(self, offer: Offer) -> str | None:
        """Why the offer was taken; None where there was no choice."""
        if offer.reason is None:
            return None
        costs = "price not known" if offer.estimate is None else "free" if not offer.estimate else f"{shown(offer.estimate)} estimated"
        said = f"{offer.backend.name}: {', '.join(filter(None, (offer.reason, costs)))}"
        return "; ".join((said, *self._passed))

    def _each(self, candidates: Sequence[Backend], reason: str) -> Iterator[Offer]:
        errors: list[ThreadkeepError] = []
        for one in candidates:
            try:
                offer = self._offer(one, reason)
            except (CannotFit, NoCandidate, SpendCapReached, *FAILURES) as error:
                errors.append(error)
                self._passed.append(f"{one.name} passed over: {error}")
            else:
                yield offer
        if len(errors) == len(candidates):
            raise self._worst(errors)

    def _offer(self, backend: Backend, reason: str | None) -> Offer:
        offer = Offer(backend, self._assemble(backend), reason)
        if self._account is not None and self._account.capped:
            self._account.check(backend.name, offer.estimate)
        return offer

    def _worst(self, errors: Sequence[ThreadkeepError]) -> ThreadkeepError:
        too_dear = [error for error in errors if isinstance(error, SpendCapReached)]
        too_long = [error for error in errors if isinstance(error, CannotFit)]
        unable = [error for error in errors if isinstance(error, NoCandidate)]
        if too_dear:
            return min(too_dear, key=lambda error: error.estimate)
        if len(too_long) == len(errors):
            return max(too_long, key=lambda error: error.room)
        if len(unable) == len(errors):
            return NoCandidate([lacking for error in unable for lacking in error.lacking])
        return errors[0] if len(errors) == 1 else BackendError(f"no candidate could be asked: {'; '.join(self._passed)}")


def assemble_for(backend: Backend | None, history: SQLHistory, request: Request) -> Context:
    """The context for a backend, with the bytes of what it shows; None: for a client of the caller's own.

    Raises:
        CannotFit: no valid context exists within the budget.
        NoCandidate: it is one of several, sees no pictures, and one of the newest messages shows one.
        NotFound: the bytes of what an entry shows are not in the store any more.
    """
    context = assemble(history, request)
    if isinstance(backend, Candidate) and not request.profile.images:
        newest = history.between(history.head.seq - NEWEST + 1, history.head.seq)
        if any("image_url" in entry.body and has_picture(entry.raw) for entry in newest):
            raise NoCandidate([(backend.name, ["vision"])])
    messages = filled(context.messages, history.blobs)
    return context if messages is context.messages else replace(context, messages=messages)
