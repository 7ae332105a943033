"""What is told of a branch of a session."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Branch:
    """A way that a session went: what it shares with another branch up to a point, and what was said on it since."""

    name: str
    parent: str | None
    """The branch that it shares its first entries with; None where it shares none."""
    at: int
    """The seq of the last entry that it shares; 0: none."""
    entries: int
    """How many it has in all, the shared ones included."""
    tokens: int
    """What they cost."""
    active: bool
    """Whether the session goes on here."""
    created_at: datetime
    """When it was forked, in UTC."""
