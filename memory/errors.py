"""Everything threadkeep raises, sorted by what the caller can do about it.

    ThreadkeepError
    ├── InvalidMessage      (ValueError)    mend the message: `field` names the place
    ├── InvalidSetting      (ValueError)    mend the argument
    ├── CannotFit           (ValueError)    give a larger budget, or shorter instructions, pins or message
    ├── Conflict            (RuntimeError)  wait, or answer the other turn's caller
    │   ├── LeaseLost                       another holder has the session: stop, do not retry the write
    │   │   └── Superseded                  it was taken on purpose: nobody waits for this reply any more
    │   └── KeyReused                       use a new key for new content
    ├── NotFound            (LookupError)   no such session, entry or turn for this owner
    ├── StoreError          (RuntimeError)  the database did not do what was asked; nothing was written, or nobody knows
    │   ├── StoreBusy                       try again: the database was locked or out of connections
    │   ├── SchemaTooOld                    run `threadkeep migrate`
    │   └── SchemaTooNew                    upgrade threadkeep
    ├── StrategyError       (RuntimeError)  mend the strategy: it returned what the history does not hold
    ├── NoBackend           (RuntimeError)  give `Memory` a backend, or hold the turn and call `finish`
    ├── BackendError        (RuntimeError)  the model failed; what it said before is stored
    ├── Truncated           (RuntimeError)  give a larger max_tokens: the reply was cut before it said anything that can be used
    ├── InvalidReply        (ValueError)    ask again: the reply is not what response_format asks for
    ├── NoCandidate         (LookupError)   give the router a candidate that has what the request needs
    ├── SpendCapReached     (RuntimeError)  raise the cap, then send the same key again: nothing was asked of the model
    ├── EmbedderError       (RuntimeError)  the embedder failed; what is stored is safe, and upkeep tries again
    ├── SummariserError     (RuntimeError)  the summariser failed, or gave no summary; nothing is stored, and upkeep tries again
    ├── ModelUnavailable    (OSError)       put the file where the message says, or connect
    └── MissingExtra        (ImportError)   install the extra that the message names

Each also derives from the builtin it specialises. A message says the numbers and the next step.
"""

from collections.abc import Sequence
from decimal import Decimal


class ThreadkeepError(Exception):
    """The root: catches everything that threadkeep raises on purpose."""


class InvalidMessage(ThreadkeepError, ValueError):
    """What was handed in is not a message."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        """The place, as a path: `messages[2].tool_calls[0].id`."""
        self.problem = problem

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.problem)

    def inside(self, place: str) -> "InvalidMessage":
        """The same error, its field seen from one level further out."""
        return InvalidMessage(f"{place}.{self.field}", self.problem)


class InvalidSetting(ThreadkeepError, ValueError):
    """An argument that no call can honour."""


class CannotFit(ThreadkeepError, ValueError):
    """No valid context exists within the budget."""

    def __init__(self, needed: int, room: int, parts: dict[str, int]) -> None:
        listed = ", ".join(f"{name} {tokens}" for name, tokens in parts.items() if tokens)
        super().__init__(
            f"what must be in the context takes at least {needed} tokens ({listed}), and the budget leaves {room}. "
            "Give a larger window, keep less for the reply, or shorten the instructions, the pins or the message."
        )
        self.needed = needed
        """Tokens of the smallest valid context."""
        self.room = room
        """Tokens the budget leaves for it."""
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.needed, self.room, self.parts)


class Conflict(ThreadkeepError, RuntimeError):
    """Another turn holds the session."""


class LeaseLost(Conflict):
    """This holder's lease ended and another took the session: nothing more of it is written."""


class Superseded(LeaseLost):
    """A turn with policy="supersede" took the session, or took this one up again under its key. What was said is stored as interrupted."""


class KeyReused(Conflict):
    """A key came again with other content."""


class NotFound(ThreadkeepError, LookupError):
    """No such session, entry or turn for this owner."""


class StoreError(ThreadkeepError, RuntimeError):
    """The database did not do what was asked; nothing of the call was written.

    Where the connection was lost while the database was asked to keep it, nobody knows: the message says so, and the same call with the
    same key writes it once.
    """


class StoreBusy(StoreError):
    """The database was locked, or all connections were taken, for longer than the time-out."""


class SchemaTooOld(StoreError):
    """The database was made by an older release."""


class SchemaTooNew(StoreError):
    """The database was made by a newer release."""


class StrategyError(ThreadkeepError, RuntimeError):
    """A strategy returned what the history does not hold."""


class NoBackend(ThreadkeepError, RuntimeError):
    """This memory has no model to ask."""


class BackendError(ThreadkeepError, RuntimeError):
    """The model failed."""


class Truncated(ThreadkeepError, RuntimeError):
    """The reply was cut by `max_tokens` inside what `response_format` asks for, or before its first word: inside a call of a tool, or while
    the model thought. What was said is stored as interrupted.
    """

    def __init__(self, text: str, tokens: int | None) -> None:
        where = f"inside what response_format asks for; its {len(text)} characters are stored as interrupted"
        super().__init__(
            f"the reply was cut at its limit of tokens{'' if tokens is None else f', {tokens}'}, "
            f"{where if text else 'before its first word, or inside a call of a tool'}: give a larger max_tokens. "
            "Under the same key the model is asked again"
        )
        self.text = text
        """What was said."""
        self.tokens = tokens
        """What the reply was allowed, where that is known."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.text, self.tokens)


class InvalidReply(ThreadkeepError, ValueError):
    """The reply is not what `response_format` asks for. It is stored as interrupted."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(
            f"the reply is not what response_format asks for: {problem}. It is stored as interrupted; under the same key the model is "
            "asked again"
        )
        self.text = text
        """What was said."""
        self.problem = problem

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.text, self.problem)


class NoCandidate(ThreadkeepError, LookupError):
    """None of a router's candidates has what a request needs."""

    def __init__(self, lacking: Sequence[tuple[str, Sequence[str]]]) -> None:
        listed = "; ".join(f"{name} has no {' and no '.join(lacks)}" for name, lacks in lacking)
        super().__init__(f"no candidate of the router has what this request needs: {listed}. Add one that has, or ask for less")
        self.lacking = lacking
        """Each candidate's name, with what it lacks."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.lacking,)


class SpendCapReached(ThreadkeepError, RuntimeError):
    """A model call would, or could, go over what a session or an owner may spend. It was not made."""

    def __init__(self, whose: str, cap: Decimal, spent: Decimal, estimate: Decimal) -> None:
        super().__init__(
            f"the {whose}'s spend cap is ${cap:f}: ${spent:f} are spent, and the call may cost ${estimate:f}. The model was not asked. "
            "Raise the cap (spend_cap=SpendCap(…)), or ask for a shorter reply; the same key takes the turn up again"
        )
        self.whose = whose
        """`session` or `owner`."""
        self.cap = cap
        self.spent = spent
        """What the ledger has, in US dollars."""
        self.estimate = estimate
        """What the refused call may cost."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.whose, self.cap, self.spent, self.estimate)


class EmbedderError(ThreadkeepError, RuntimeError):
    """An embedder failed, or gave what are no vectors of length 1."""


class SummariserError(ThreadkeepError, RuntimeError):
    """A summariser failed, or gave what is no summary."""


class ModelUnavailable(ThreadkeepError, OSError):
    """A model's file is not here and could not be fetched."""


class MissingExtra(ThreadkeepError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'threadkeep[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.package, self.extra)
