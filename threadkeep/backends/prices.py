"""What a model call costs: prices a million tokens, exact, from the genai-prices package or from the caller."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

from threadkeep.backends.base import Usage
from threadkeep.memory.money import EXACT, Price


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
