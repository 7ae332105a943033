"""The async twins have what the others have, under the same names and with the same arguments."""

import inspect
import re
from collections.abc import Callable

import pytest

from threadkeep import AsyncMemory, AsyncSession, AsyncTurn, Memory, Session, Turn
from threadkeep.memory.async_turn import AsyncStream
from threadkeep.memory.stream import Stream

TWINS = [(Memory, AsyncMemory), (Session, AsyncSession), (Turn, AsyncTurn), (Stream, AsyncStream)]
OF_THE_DRIVER = {
    Session: {"prepare", "try_append", "still_held", "to_fork", "to_edit", "to_switch", "never_free"},
    Turn: {
        "prepare",
        "try_begin",
        "still_busy",
        "held",
        "save_draft",
        "end",
        "release",
        "lease",
        "patience",
        "record",
        "choose_tool",
        "routing",
        "offers",
        "note",
    },
    Stream: {"turn", "run_on", "assemble", "start", "left", "leave", "close"},
    AsyncTurn: {"begin"},
}
"""What the async twins are driven by, and show to nobody."""
ATTRIBUTES = {Session: {"name", "owner"}, Turn: {"id"}, Stream: {"turn"}}
"""Set on each object, where the twin has properties."""


def public(kind: type) -> set[str]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    return (names | ATTRIBUTES.get(kind, set())) - OF_THE_DRIVER.get(kind, set())


@pytest.mark.parametrize(("plain", "twin"), TWINS)
def test_twins_have_the_same_names(plain: type, twin: type) -> None:
    assert public(plain) == public(twin)


@pytest.mark.parametrize(("plain", "twin"), TWINS)
def test_twins_take_the_same_and_give_the_same(plain: type, twin: type) -> None:
    for name in sorted(public(plain) - ATTRIBUTES.get(plain, set())):
        ours, theirs = inspect.getattr_static(plain, name), inspect.getattr_static(twin, name)
        if isinstance(ours, property):
            assert isinstance(theirs, property), f"{twin.__name__}.{name}"
            ours, theirs = ours.fget, theirs.fget
        assert described(theirs) == [re.sub(r"\b(Session|Turn|Stream)\b", r"Async\1", line) for line in described(ours)]


def test_memories_are_made_with_the_same_arguments() -> None:
    assert inspect.signature(AsyncMemory) == inspect.signature(Memory)


def described(function: Callable[..., object]) -> list[str]:
    """The name, the parameters with kinds, types and defaults, and what comes back; types without the modules they are in."""
    signature = inspect.signature(function, eval_str=True)
    lines = [f"{one.kind.description}: {one}" for one in signature.parameters.values()]
    lines = [function.__name__, *lines, f"-> {inspect.formatannotation(signature.return_annotation)}"]
    return [re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", line) for line in lines]
