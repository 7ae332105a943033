"""What a model call costs: prices a million tokens, exact, from the genai-prices package or from the caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext

from threadkeep.backends.base import Usage
from threadkeep.memory.errors import InvalidSetting

EXACT = Context(prec=100, traps=[Inexact])
"""Nothing is ever rounded: a result that had to be would be an error."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens: `Decimal`s, never floats.

    Raises:
        InvalidSetting: a price is no such number from 0, or `over` does not ascend.
    """

    input: Decimal
    cached: Decimal | None = None
    """Of the prompt's tokens, those the model had kept from before; None: as the others."""
    output: Decimal = Decimal(0)
    over: tuple[tuple[int, "Price"], ...] = ()
    """Where a longer prompt costs more: above so many prompt tokens, all tokens of the call have this price."""

    def __post_init__(self) -> None:
        for name in ("input", "output", *(() if self.cached is None else ("cached",))):
            object.__setattr__(self, name, dollars(getattr(self, name), f"Price({name}=…)"))
        starts = [start for start, _ in self.over]
        if starts != sorted(set(starts)):
            raise InvalidSetting(f"Price(over={self.over!r:.80}): pairs of prompt tokens and a Price, ascending")

    def at(self, prompt_tokens: int) -> "Price":
        """The price of a call with so long a prompt."""
        return next((price for start, price in reversed(self.over) if prompt_tokens > start), self)


def dollars(given: object, place: str) -> Decimal:
    """An exact amount from 0.

    Raises:
        InvalidSetting: it is none; names the place.
    """
    try:
        if isinstance(given, bool) or not isinstance(given, Decimal | int | str):
            raise ValueError(f"{given!r} is a {type(given).__name__}")
        amount = Decimal(given)
        if not amount.is_finite() or amount < 0:
            raise ValueError(f"{amount} is less than 0, or no amount")
    except (ValueError, ArithmeticError) as error:
        raise InvalidSetting(f'{place}: US dollars from 0, exact: Decimal("0.10"), "0.10" or a whole number, not {given!r:.80}') from error
    return amount


FREE = Price(Decimal(0))
"""Of a model on this machine."""


def cost_of(price: Price, usage: Usage) -> Decimal:
    """What a call cost, in US dollars, exact. `usage.cached_tokens` are part of its `prompt_tokens`."""
    charged = price.at(usage.prompt_tokens)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    with localcontext(EXACT):
        kept = cached * (charged.input if charged.cached is None else charged.cached)
        return ((usage.prompt_tokens - cached) * charged.input + kept + usage.completion_tokens * charged.output).scaleb(-6)


def price_of(model: str, url: str | None = None) -> Price | None:
    """A provider's published price today; None where it is not known, or genai-prices is not installed (the extra is `openai`).

    Args:
        model: its name, as the provider has it.
        url: the provider's API; without one, the provider is found by the model's name.
    """
    try:
        from genai_prices import Usage as Used
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        found = calc_price(Used(), model_ref=model, provider_api_url=url).model_price
    except (LookupError, ValueError):
        return None
    parts = [found.input_mtok, found.cache_read_mtok, found.output_mtok]
    if parts[0] is None:
        return None
    starts = sorted({tier.start for part in parts for tier in getattr(part, "tiers", ())})
    return Price(*_flat(parts, 0), over=tuple((start, Price(*_flat(parts, start))) for start in starts))


def price_for(model: object) -> Price | None:
    """What a backend's or an embedder's calls cost: its `price`, where it has one; otherwise what its name is published at, by its URL."""
    own = getattr(model, "price", None)
    if isinstance(own, Price):
        return own
    name, url = getattr(model, "name", None), getattr(model, "base_url", None)
    return price_of(name, None if url is None else str(url)) if isinstance(name, str) else None


def _flat(parts: Sequence[object], start: int) -> tuple[Decimal, Decimal | None, Decimal]:
    """Input, cached and output for prompts above `start` tokens."""
    given, cached, output = (_above(part, start) for part in parts)
    return given or Decimal(0), cached, output or Decimal(0)


def _above(part: object, start: int) -> Decimal | None:
    base = getattr(part, "base", part)
    reached = [tier.price for tier in getattr(part, "tiers", ()) if tier.start <= start]
    found = reached[-1] if reached else base
    return found if isinstance(found, Decimal) else None
