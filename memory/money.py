"""US dollars as exact decimals: prices, and amounts that are read from a caller, added up without rounding, and shown."""

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact

from threadkeep.memory.errors import InvalidSetting

EXACT = Context(prec=100, traps=[Inexact])
"""For `decimal.localcontext`: nothing is rounded; a result that had to be would be an error."""


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
        raise InvalidSetting(f'{place}: US dollars from 0, exact: Decimal("0.10"), not {given!r:.80}') from error
    return amount


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
        tiers = [tier for tier in self.over if isinstance(tier, tuple) and [type(one) for one in tier] == [int, Price]]
        starts = [start for start, _ in tiers]
        if len(tiers) < len(self.over) or starts != sorted(set(starts)) or any(start < 0 for start in starts):
            raise InvalidSetting(f"Price(over={self.over!r:.80}): pairs of prompt tokens and a Price, ascending")

    def at(self, prompt_tokens: int) -> "Price":
        """The price of a call with so long a prompt."""
        return next((price for start, price in reversed(self.over) if prompt_tokens > start), self)


FREE = Price(Decimal(0))
"""Of a model on this machine."""


def shown(amount: Decimal) -> str:
    """An amount as people read it: all of it from a hundredth of a cent on, of less two digits."""
    rounded = amount.quantize(Decimal("0.0001")) if amount >= Decimal("0.001") else Decimal(f"{amount:.2g}")
    text = f"{rounded:f}"
    return f"${text.rstrip('0').rstrip('.') if '.' in text else text}"
