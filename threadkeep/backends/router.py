"""A backend made of several: for each request the cheapest that can take it, and the next one where that one fails."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

from threadkeep.backends.answering import FAILURES, USUAL_REPLY, Offer, answers
from threadkeep.backends.base import Backend, Event, Profile, Usage
from threadkeep.backends.candidate import Candidate
from threadkeep.backends.prices import cost_of
from threadkeep.backends.tiers import tier_of
from threadkeep.memory.context import Context
from threadkeep.memory.errors import CannotFit, InvalidSetting, NoCandidate, ThreadkeepError
from threadkeep.memory.fitting import fit
from threadkeep.memory.message import JSON
from threadkeep.memory.tokens import TokenCounter

Policy: TypeAlias = Callable[[JSON], int | tuple[int, str]]
"""The tier that a request asks for, and why. The request: `messages`, the newest last; `tools`, `response_format`, `tool_choice` and
`max_tokens`, where given; all in OpenAI's format; and `tokens`, what the conversation takes so far."""

NEWEST = 8
"""The last messages of a conversation: a picture in one of them is to be seen, an older one may be told of."""


@dataclass(frozen=True)
class Route:
    """Who may answer a request."""

    candidates: Sequence[Candidate]
    """In the order of trying."""
    reason: str
    """Which tier was asked for, and why."""


class Router:
    """Asks the cheapest candidate that has what a request needs and reaches the tier it asks for; where that one fails before it has
    said anything, the next.

    What a candidate would cost is reckoned on the same work for all: the conversation so far, and the longest reply. The context is
    each candidate's own, assembled with its counter and within its window; one that it cannot fit is passed over.

    Sessions count in the first candidate's tokens: put first what is always there and answers most. The window is that of the largest.

    Args:
        candidates: backends, or `Candidate`s where more is to be said of them.
        policy: takes a request and gives the tier it asks for, or the tier and why; `tiers.tier_of` where none is given. Where no
            candidate reaches that tier which has what the request needs, the highest tier that one of them has will do.

    Raises:
        InvalidSetting: there is no candidate, or one is no backend.
    """

    def __init__(self, candidates: Sequence[Backend], policy: Policy | None = None) -> None:
        if not isinstance(candidates, Sequence) or not candidates:
            raise InvalidSetting(f"Router({candidates!r:.80}): a list of at least one backend or Candidate")
        if policy is not None and not callable(policy):
            raise InvalidSetting(f"Router(policy={policy!r:.80}): a function of a request, or None")
        self._candidates = tuple(one if isinstance(one, Candidate) else Candidate(one) for one in candidates)
        if any(isinstance(one.backend, Router) for one in self._candidates):
            raise InvalidSetting("a router's candidates are no routers: put theirs into one list")
        self._policy: Policy = policy or tier_of

    def __repr__(self) -> str:
        return f"Router({list(self._candidates)!r})"

    @property
    def name(self) -> str:
        """The first candidate's; the ledger has the name of the one that answered."""
        return self._candidates[0].name

    @property
    def counter(self) -> TokenCounter:
        return self._candidates[0].counter

    @property
    def window(self) -> int:
        return max(one.window for one in self._candidates)

    @property
    def profile(self) -> Profile:
        return self._candidates[0].profile

    def candidates(self, request: JSON) -> Sequence[Candidate]:
        """Those that a request may be sent to, in order. Raises as `route` does."""
        return self.route(request).candidates

    def route(self, request: JSON) -> Route:
        """Those that a request may be sent to, in order, and why.

        Raises:
            NoCandidate: each lacks something that the request needs.
            InvalidSetting: the policy gave no tier.
        """
        needs = needs_of(request)
        lacking = [(one, [need for need in needs if _lacks(one, need)]) for one in self._candidates]
        able = [one for one, lacks in lacking if not lacks]
        if not able:
            raise NoCandidate([(one.name, lacks) for one, lacks in lacking])
        tier, reason = self._tier(request)
        highest = max(one.tier for one in able)
        costs = {one: _cost(one, request) for one in able if one.tier >= min(tier, highest)}
        ordered = sorted(costs, key=lambda one: (costs[one] is None, costs[one] or 0, one.tier))
        said = f"tier {tier}" + (f" ({reason})" if reason else "") + (f", the highest there is: {highest}" if tier > highest else "")
        return Route(ordered, said)

    def stream(self, context: Context) -> Generator[Event, None, None]:
        """The reply to a context that was assembled without a session: from the first candidate that it fits.

        Raises:
            CannotFit: it is too long for each that has what it needs.
            NoCandidate: each lacks something that it needs.
            BackendError: each failed.
        """
        for _, event in answers(self.fitting(context), lambda *_: None):
            yield event

    def fitting(self, context: Context) -> Iterator[Offer]:
        """Those that a context may be sent to which was assembled without a session, in order. Raises as `stream` does."""
        route = self.route({**context.request, "tokens": context.tokens})
        too_long: list[CannotFit] = []
        missing: list[ThreadkeepError] = []
        for one in route.candidates:
            try:
                messages = [fit(message, one.profile) for message in context.typed_messages()]
                counted = one.counter.count_request(messages, tools=context.tools, response_format=context.response_format)
            except FAILURES as error:
                missing.append(error)
                continue
            room = one.window - context.budget.reply
            if counted.tokens > room:
                too_long.append(CannotFit(counted.tokens, room, {"context": counted.tokens}))
                continue
            sent = [message.to_dict() for message in messages]
            fitted = replace(context, messages=sent, tokens=counted.tokens, exact=counted.exact, counter=one.counter.name)
            yield Offer(one, fitted, route.reason)
        if len(too_long) + len(missing) == len(route.candidates):
            raise missing[0] if missing else max(too_long, key=lambda error: error.room)

    def close(self) -> None:
        """Close every candidate."""
        for one in self._candidates:
            one.close()

    def _tier(self, request: JSON) -> tuple[int, str]:
        given = self._policy(request)
        tier, reason = given if isinstance(given, tuple) and len(given) == 2 else (given, "")
        if type(tier) is not int or tier < 1 or not isinstance(reason, str):
            raise InvalidSetting(f"the router's policy gave {given!r:.80}: a tier from 1, or the tier and why")
        return tier, reason


def needs_of(request: JSON) -> list[str]:
    """What a request needs, as `candidate.CAPABILITIES` names it."""
    messages = request.get("messages")
    newest = messages[-NEWEST:] if isinstance(messages, list) else []
    needs = {
        "tools": bool(request.get("tools")),
        "vision": any(has_picture(message) for message in newest),
        "structured output": bool(request.get("response_format")),
    }
    return [name for name, needed in needs.items() if needed]


def has_picture(message: JSON) -> bool:
    """Whether a message in OpenAI's format shows a picture."""
    content = message.get("content")
    return isinstance(content, list | tuple) and any(isinstance(part, dict) and part.get("type") == "image_url" for part in content)


def _lacks(candidate: Candidate, need: str) -> bool:
    """Whether it is known to lack it: one whose model is not here may have it, and says what is wrong when it is its turn."""
    try:
        return not candidate.can(need)
    except FAILURES:
        return False


def _cost(candidate: Candidate, request: JSON) -> Decimal | None:
    price, tokens, reply = candidate.price, request.get("tokens"), request.get("max_tokens")
    work = Usage(tokens if isinstance(tokens, int) else 0, reply if isinstance(reply, int) else USUAL_REPLY)
    return None if price is None else cost_of(price, work)
