"""What can be asked of a memory, one action a name, so that a test can look at every statement there is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import NamedTuple
from unittest.mock import patch

from sqlalchemy import Engine, event

from threadkeep import (
    Budget,
    ClearToolResults,
    Compose,
    Conflict,
    ImagePart,
    Memory,
    Message,
    NotFound,
    Price,
    Recall,
    RollingSummary,
    ScriptedBackend,
    Selective,
    Session,
    SlidingWindow,
    SpendCap,
    SummaryTree,
    ToolCall,
)
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.stores import turn_queries
from threadkeep.strategies.default import default_strategy
from threadkeep.testing import Letters

LETTERS = Letters()
BUDGET = Budget(700, reply=100)
PRICE = Price(Decimal(2), Decimal("0.5"), Decimal(8))
UPKEPT = Compose(
    SummaryTree(span=200, fan=2, tokens=60, recent=200), RollingSummary(span=200, tokens=60, recent=200), Recall(), shares=(0.3, 0.3, 0.4)
)
CHOOSING = (
    Selective(roles=("assistant",)),
    Selective(tags=("fact",)),
    Selective(tags=("fact",), roles=("user",)),
    Selective(importance=0.5),
    Selective(tags=("fact",), importance=0.5),
    ClearToolResults(),
)


def opened(url: str, **more: object) -> Memory:
    """A memory that does everything there is to do: it embeds, recalls, sums up, pays and keeps within caps."""
    backend = ScriptedBackend(lambda context: f"reply to {context.messages[-1]['content']}", window=BUDGET.window)
    backend.price = PRICE
    settings = {
        "backend": backend,
        "budget": BUDGET,
        "strategy": UPKEPT,
        "embedder": HashedEmbedder(),
        "upkeep": False,
        "spend_cap": SpendCap(session=Decimal(10**9), owner=Decimal(10**9)),
    }
    return Memory(url, **{**settings, **more})  # type: ignore[arg-type]


def fill(session: Session, messages: int = 120) -> None:
    """A log of turns, some with tools, marked and pinned, with all that upkeep makes of it."""
    for first in range(0, messages, 100):
        batch = [
            (Message.assistant if number % 2 else Message.user)(f"message {number} about a parcel and train {number % 7}")
            for number in range(first, min(first + 98, messages))
        ]
        session.append(*batch, metadata={"tags": ["fact"], "importance": 0.9})
        session.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("it is there", tool_call_id="a"))
    session.append("A parcel fell down sideways.", "first of a batch", "second of it", key="batch")
    session.pin(2)
    session.upkeep()
    session.chat("And where is the parcel now?", key="asked")


def fill_other(memory: Memory, session: Session) -> None:
    """Another session of the owner, about the same."""
    other = memory.session("other", owner=session.owner)
    other.append("The parcel in the other session fell sideways.", "The train took it.")
    other.upkeep()


def turn(memory: Memory, session: Session) -> None:
    """All that may happen in a turn: tools, drafts, a key, a retry, a pin before and one after."""
    with session.turn("Where is the parcel?", key="k", instructions="You help.", strategy=default_strategy()) as held:
        assert held.request
        held.draft("It is")
    with session.turn("Where is the parcel?", key="k", instructions="You help.") as held:
        assert held.request
        held.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("in the shed", tool_call_id="a"))
        assert held.request
        held.finish("It is in the shed.")
    with session.turn("Where is the parcel?", key="k") as again:
        assert again.reply is not None
    session.context("And where is the shed?", strategy=SlidingWindow())
    session.context(as_of=held)
    session.append("By the way.", key="aside")
    session.entries(after=2, limit=3)


def choose(memory: Memory, session: Session) -> None:
    for strategy in CHOOSING:
        session.context("And now?", strategy=strategy)


def recall(memory: Memory, session: Session) -> None:
    for scope in ("session", "owner"):
        session.context("Which train was about a parcel?", strategy=Recall(scope=scope, floor=0))
        session.search("parcel", scope=scope)


def recall_much(memory: Memory, session: Session) -> None:
    """As a long log, and one of which many vectors are missing, is read."""
    Memory(memory.store, counter=LETTERS, budget=BUDGET, upkeep=False).session(session.name, owner=session.owner).append(
        "By another tokenizer."
    )
    session.upkeep()
    session.append("Not embedded yet.")
    with patch("threadkeep.stores.index_terms.MANY", 10), patch("threadkeep.stores.index.GROUPS", 0):
        for scope in ("session", "owner"):
            session.search("sideways parcel", scope=scope)


def pay(memory: Memory, session: Session) -> None:
    session.chat("What does it cost?")
    session.calls()
    memory.usage(owner=session.owner)
    memory.usage(owner=session.owner, session=session.name)


def list_(memory: Memory, session: Session) -> None:
    (first, *_) = memory.sessions(owner=session.owner, limit=2)
    memory.sessions(owner=session.owner, after=first.name, limit=2)


def pin(memory: Memory, session: Session) -> None:
    session.pin(1)
    session.pin(1)


def upkeep(memory: Memory, session: Session) -> None:
    session.append("One more.", Message.assistant("And its answer, about another parcel " * 30))
    session.upkeep()
    memory.session("another", owner="newcomer").append("Of a new owner.", Message.assistant("Welcome."))
    memory.upkeep(owner="newcomer")


def branch(memory: Memory, session: Session) -> None:
    """Fork, edit, answer anew, list, and go back."""
    main = session.branches()[0].name
    session.append("Where is it, then?", Message.assistant("Nowhere."))
    session.fork("a fork", at=60)
    session.append("And on the fork?", key="k")
    session.context("What of the parcel?", strategy=default_strategy())
    session.search("sideways parcel")
    session.pin(3)
    edited = session.edit(20, "What of the other parcel?")
    session.regenerate()
    session.upkeep()
    session.fork("deep", at=edited.seq)
    call = Message.assistant(None, tool_calls=[ToolCall("late", "look", "{}")])
    *_, late, _ = session.append(call, "Never mind.", Message.tool("too late", tool_call_id="late"), "So what?")
    session.fork("a third", at=late.seq)
    session.entries(after=10, limit=20, branch="a fork")
    for after in (None, "deep"):
        session.branches(after=after, limit=1)
    session.switch(main)


def supersede(memory: Memory, session: Session) -> None:
    with suppress(Conflict), session.turn("What is it?") as held, session.turn("No, this.", policy="supersede") as after:
        after.finish("That.")
        held.finish("It is this.")
    row = memory.store.session(session.owner, session.name)
    assert row is not None
    with memory.store.read() as connection:  # a holder in another process finds out like this
        assert turn_queries.holder_of(connection, row.owner_id, row.id, 1) is not None


def find_nothing(memory: Memory, session: Session) -> None:
    """What is not there is looked for by its key, too."""
    for look in (memory.session("none", owner=session.owner).entries, memory.session(session.name, owner="nobody").entries):
        try:
            look()
        except NotFound:
            continue
        raise AssertionError("it was found")
    memory.session("none", owner=session.owner).context("Hello?", strategy=Recall(scope="owner"))


def begin(memory: Memory, session: Session) -> None:
    memory.session("another", owner=session.owner).append("Its first message.")


def show(memory: Memory, session: Session) -> None:
    """Pictures: given, given again, named, sent, looked at."""
    message = Message.user([ImagePart.from_bytes(name.encode(), "image/png", detail="low") for name in ("a hen", "a boat")])
    session.append(message)
    (entry,) = session.append(message)
    memory.session("another", owner=session.owner).append(entry.message)
    session.context(strategy=SlidingWindow(), budget=Budget(1000))
    for part in entry.message.parts:
        assert isinstance(part, ImagePart)
        assert session.blob(part)


def delete(memory: Memory, session: Session) -> None:
    memory.session("another", owner=session.owner).delete()
    memory.delete_owner("newcomer")


ACTIONS: Mapping[str, Callable[[Memory, Session], object]] = {
    action.__name__: action
    for action in (
        turn,
        fill_other,
        choose,
        recall,
        recall_much,
        pay,
        list_,
        pin,
        begin,
        show,
        upkeep,
        branch,
        supersede,
        find_nothing,
        delete,
    )
}


class Executed(NamedTuple):
    """A statement as the driver was handed it, with one set of its parameters."""

    action: str
    statement: str
    parameters: object

    @property
    def kind(self) -> str:
        return self.statement.split()[0].upper()


@contextmanager
def noted(engine: Engine, action: str, into: list[Executed]) -> Iterator[None]:
    """Note what is executed meanwhile, each statement once."""
    known = {one.statement for one in into}

    def note(_1: object, _2: object, statement: str, parameters: object, _3: object, many: bool) -> None:
        if statement not in known and statement.split(maxsplit=1)[0].upper() in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            known.add(statement)
            into.append(Executed(action, statement, parameters[0] if many and isinstance(parameters, list) else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)


def executed(memory: Memory, session: Session) -> list[Executed]:
    """Every statement of all actions, each once."""
    seen: list[Executed] = []
    for name, action in ACTIONS.items():
        with noted(memory.store.engine, name, seen):
            action(memory, session)
    return seen
