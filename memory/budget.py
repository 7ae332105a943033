"""How many tokens a context may take."""

from dataclasses import dataclass, replace

from threadkeep.memory.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Budget:
    """A model's context window, and what of it is kept free for the reply; all in tokens.

    The last two fields are filled in by the assembler for the strategy it asks; a caller leaves them alone.
    """

    window: int
    """The model's context window."""
    reply: int = 0
    """Kept free for the reply; sent to the model as its `max_tokens`, unless 0."""
    reserved: int = 0
    """Taken whatever the strategy does and from turn to turn alike: instructions, tools, pins."""
    live: int = 0
    """Taken by what must be kept of the live turn: changes with every turn."""

    def __post_init__(self) -> None:
        for name in ("window", "reply", "reserved", "live"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidSetting(f"Budget.{name} is a number of tokens from 0, not {value!r}")
        if self.window <= self.reply:
            raise InvalidSetting(
                f"Budget(window={self.window}, reply={self.reply}) leaves no token for a context: "
                "the reply's share must be smaller than the window"
            )

    @property
    def ceiling(self) -> int:
        """The most a whole context may take."""
        return self.window - self.reply

    @property
    def room(self) -> int:
        """What is left for the log, the live turn included: stable from turn to turn."""
        return max(0, self.ceiling - self.reserved)

    @property
    def left(self) -> int:
        """What is left for a strategy's picks beside what must be kept."""
        return max(0, self.room - self.live)

    def within(self, reserved: int, live: int) -> "Budget":
        """The same budget as a strategy sees it."""
        return replace(self, reserved=reserved, live=live)
