"""How long to wait for a session that another turn holds, and what to do instead of waiting."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, get_args

from threadkeep.memory.errors import InvalidSetting

Policy: TypeAlias = Literal["wait", "reject", "supersede"]
"""What a turn does while another holds its session: wait for it, give up at once, or take the session from it."""
WAIT_SECONDS = 30.0
"""How long a turn waits for another one of its session, unless told otherwise."""
FIRST_LOOK, LONGEST_LOOK = 0.005, 0.25
"""Seconds between two looks whether the session is free: the first, doubled until the longest."""


def read_policy(policy: object) -> Policy:
    """A policy's name.

    Raises:
        InvalidSetting: there is none of this name.
    """
    for known in get_args(Policy):
        if policy == known:
            return known  # type: ignore[no-any-return]
    raise InvalidSetting(f"policy={policy!r:.80}: 'wait', 'reject' or 'supersede'")


def waits(timeout: float, holder: Callable[[], int | None] = lambda: None) -> Iterator[float]:
    """Seconds to sleep between looks, until `timeout` seconds have passed; at least one look.

    The more turns have overtaken this one, by what `holder` says of the turn that was seen last, the sooner it looks again. Otherwise a
    session that is asked for without a pause goes to whoever has just left it, again and again.

    Raises:
        InvalidSetting: it is no number of seconds.
    """
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidSetting(f"timeout={timeout!r:.80}: seconds to wait, from 0")
    end = time.monotonic() + timeout
    pause, first = FIRST_LOOK, None
    while True:
        left = end - time.monotonic()
        yield max(0.0, min(pause * (0.5 + random.random()), left))  # spreads the waiting, guards nothing
        if left <= 0:
            return
        seen = holder()
        first = seen if first is None else first
        overtaken = 0 if seen is None or first is None else seen - first
        pause = min(2 * pause, max(LONGEST_LOOK / (1 + overtaken / 4), FIRST_LOOK))
