"""How an entry's place in the log follows from the head before it: group, turn, totals.

A pure function; the store runs it inside the transaction that appends, the assembler for a message that is only supposed.
"""

from dataclasses import dataclass

from threadkeep.memory.history import Head
from threadkeep.memory.message import Message


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands and what it adds."""

    seq: int
    group_seq: int
    turn_seq: int
    late: bool
    shown_tokens: int
    cum_tokens: int
    cum_shown: int


def follow(head: Head, message: Message, tokens: int, shown_tokens: int) -> tuple[Place, Head]:
    """The place of a message appended after `head`, and the head after it.

    A result joins the newest group when that has an open call of its id. Anything else closes the group, a result without such a call
    too: that one is late. System messages that open the log are instructions: they add nothing to the totals, being paid for before them.
    """
    seq = head.seq + 1
    group_seq, turn_seq, leading = seq, head.turn_seq, head.leading
    open_calls: tuple[str, ...] = tuple(call.id for call in message.tool_calls)
    late = instructs = False
    if message.role == "tool":
        late = message.tool_call_id not in head.open_calls
        if not late:
            group_seq = head.group_seq
            answered = head.open_calls.index(str(message.tool_call_id))
            open_calls = head.open_calls[:answered] + head.open_calls[answered + 1 :]
    elif message.role == "user":
        turn_seq = seq
    elif message.role in ("system", "developer") and leading == head.seq:
        instructs = True
        leading = seq
    counted = not (late or instructs)
    cum_tokens = head.tokens + (tokens if counted else 0)
    cum_shown = head.shown_tokens + (shown_tokens if counted else 0)
    place = Place(seq, group_seq, turn_seq, late, 0 if late else shown_tokens, cum_tokens, cum_shown)
    return place, Head(seq, cum_tokens, cum_shown, head.group_seq if late else group_seq, turn_seq, open_calls, leading)
