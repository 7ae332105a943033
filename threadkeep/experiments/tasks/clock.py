"""When each message of a dataset was said: published dates, made to go forward.

Datasets date a sitting, not its messages, and some dates tie or go back.
"""

from datetime import datetime, timedelta

BETWEEN_MESSAGES = timedelta(seconds=10)
BETWEEN_SITTINGS = timedelta(minutes=31)
"""For a sitting whose date is not ahead of what was said before: just over the gap that parts sittings."""


class Clock:
    """Gives each message a time after the one before."""

    def __init__(self) -> None:
        self._next: datetime | None = None
        self.moved = 0
        """Sittings whose own date was not ahead of what was said before."""

    def sitting(self, at: datetime) -> None:
        """A sitting begins."""
        if self._next is not None and at < self._next:
            self.moved += 1
            at = self._next - BETWEEN_MESSAGES + BETWEEN_SITTINGS
        self._next = at

    def message(self) -> datetime | None:
        """When the next message was said; None before the first sitting."""
        now = self._next
        self._next = None if now is None else now + BETWEEN_MESSAGES
        return now
