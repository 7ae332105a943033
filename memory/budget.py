"""How many tokens a context may take."""

from dataclasses import dataclass, replace

from threadkeep.memory.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Budget:
    """A model's context window, and what of it is kept free for the reply; all in tokens.

    The last three fields are filled in for the strategy that is asked; a caller leaves them alone.
    """

    window: int
    """The model's context window."""
    reply: int = 0
    """Kept free for the reply; sent to the model as its `max_tokens`, unless 0."""
    reserved: int = 0
    """Taken whatever the strategy does and from turn to turn alike: instructions, tools, pins; for a part of a composition, what of the
    room is not its own."""
    live: int = 0
    """Taken by what must be kept of the live turn: changes with every turn."""
    spare: int = 0
    """Left unspent by the parts of a composition before this one: changes with every turn, too."""

    def __post_init__(self) -> None:
        for name in ("window", "reply", "reserved", "live", "spare"):
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
        return max(0, self.room - self.live) + self.spare

    def within(self, reserved: int, live: int) -> "Budget":
        """The same budget as a strategy sees it."""
        return replace(self, reserved=reserved, live=live)

    def part(self, share: float, spare: int) -> "Budget":
        """This budget as a part of a composition sees it: `share` of its room, and of what is left; and `spare` tokens more to spend.

        The room is a pure function of this one's, so that a cut on a grid stays where it is, whatever the other parts do.
        """
        room, left = int(self.room * share), int((self.left - self.spare) * share)
        return replace(self, reserved=self.ceiling - room, live=room - left, spare=int(self.spare * share) + spare)
