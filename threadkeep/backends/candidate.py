"""A backend with what a router must know of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from threadkeep.backends.base import Backend, Event, Profile
from threadkeep.backends.prices import price_for
from threadkeep.memory.context import Context
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON
from threadkeep.memory.money import Price
from threadkeep.memory.tokens import TokenCounter

CAPABILITIES = ("tools", "vision", "structured output")


class Candidate:
    """A backend for a router. It is a backend itself, and passes everything on.

    Args:
        backend: what answers.
        tier: how capable the model is, from 1; a policy asks for one.
        price: what it charges; None: its own, or what its model's name is published at. Without any, it is tried last.
        tools: whether it calls tools; None: as its profile says.
        vision: whether it sees pictures; None: as its profile says.
        schema: whether it keeps to a `response_format`; None: as its profile says.

    Raises:
        InvalidSetting: an argument is of the wrong kind.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        tier: int = 1,
        price: Price | None = None,
        tools: bool | None = None,
        vision: bool | None = None,
        schema: bool | None = None,
    ) -> None:
        is_one = callable(getattr(backend, "stream", None))  # isinstance would look at each property, and load a local model
        if not is_one or isinstance(backend, Candidate):
            raise InvalidSetting(f"Candidate({backend!r:.80}): a backend, such as LlamaCpp()")
        if type(tier) is not int or tier < 1:
            raise InvalidSetting(f"Candidate(tier={tier!r:.80}): a whole number from 1")
        if price is not None and not isinstance(price, Price):
            raise InvalidSetting(f"Candidate(price={price!r:.80}): a Price")
        self.backend = backend
        self.tier = tier
        self._price = price
        self._said = dict(zip(CAPABILITIES, (tools, vision, schema), strict=True))

    def __repr__(self) -> str:
        return f"Candidate({self.name!r}, tier={self.tier})"

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def counter(self) -> TokenCounter:
        return self.backend.counter

    @property
    def window(self) -> int:
        return self.backend.window

    @property
    def profile(self) -> Profile:
        own = self.backend.profile
        tools, images, schema = map(self.can, CAPABILITIES)
        if (tools, images, schema) == (own.tools, own.images, own.structured_output):
            return own
        return replace(own, tools=tools, images=images, structured_output=schema)

    @property
    def price(self) -> Price | None:
        return self._price or price_for(self.backend)

    def can(self, capability: str) -> bool:
        """Whether it has one of `CAPABILITIES`. The backend's profile, which may load a model, is looked at only where nothing was said."""
        said = self._said[capability]
        if said is not None:
            return said
        own = self.backend.profile
        return {"tools": own.tools, "vision": own.images, "structured output": own.structured_output}[capability]

    def stream(self, context: Context) -> Iterator[Event]:
        return self.backend.stream(context)

    def candidates(self, request: JSON) -> Sequence[Backend]:
        return (self,)

    def close(self) -> None:
        self.backend.close()
