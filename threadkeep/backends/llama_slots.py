"""Which of the engine's slots answers a request: the one that holds its conversation, and in the order of asking.

A slot keeps what it read last, so a conversation is answered soonest where it was answered before. The engine goes by how much of a request
a slot has read: where conversations share long instructions, it gives one's slot to another and forgets what came after the instructions,
even while other slots are empty. Here a conversation is known by its messages: the last ones stand in its next request, too.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from threadkeep.memory.message import JSON


@dataclass(slots=True)
class _Slot:
    held: Sequence[int] = ()
    """The marks of the request's messages that it answered last."""
    used: int = 0
    """When, counted in requests."""
    busy: bool = False


class Slots:
    """The slots of one engine. Nobody else may ask that engine without taking one."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._taken = 0

    def take(self, messages: Sequence[JSON], is_left: Callable[[], bool]) -> int | None:
        """The number of a free slot, once there is one and whoever asked before has one; None if the request was left before that.

        Whoever makes `is_left` true calls `wake`.
        """
        marks = [hash((str(message.get("role")), str(message.get("content")), str(message.get("tool_calls")))) for message in messages]
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: is_left() or (self._waiting[0] is ticket and not all(slot.busy for slot in self._slots)))
            self._waiting.remove(ticket)
            self._changed.notify_all()
            if is_left():
                return None
            number = self._chosen(marks)
            self._taken += 1
            self._slots[number] = _Slot(marks, self._taken, busy=True)
            return number

    def give_back(self, number: int) -> None:
        """The request is answered."""
        with self._changed:
            self._slots[number].busy = False
            self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait look whether they were left."""
        with self._changed:
            self._changed.notify_all()

    def _chosen(self, marks: Sequence[int]) -> int:
        """The conversation's own; else an empty one; else the one that was idle for longest, whose content the engine keeps elsewhere."""
        free = [number for number, slot in enumerate(self._slots) if not slot.busy]
        own = [number for number in free if _goes_on(self._slots[number].held, marks)]
        if own:
            return max(own, key=lambda number: _share(self._slots[number].held, marks))
        return min(free, key=lambda number: self._slots[number].used)


def _goes_on(held: Sequence[int], marks: Sequence[int]) -> bool:
    """Whether a request may be the next of the conversation that made the one before, or the same again.

    The last message may be written otherwise in the next request (what was recalled for it is left out): then the one before it must do,
    if that is not one with which all conversations begin, and a question, its reply and another question come after it.
    """
    return bool(held) and (held == marks or held[-1] in marks[:-1] or (len(held) > 2 and held[-2] in marks[:-3]))


def _share(held: Sequence[int], marks: Sequence[int]) -> float:
    """How much of the request before stands in this one."""
    said = set(marks)
    return sum(mark in said for mark in held) / len(held)
