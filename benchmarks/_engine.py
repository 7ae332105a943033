"""What the benchmarks with a real model share: a request as the engine reads it, token by token, and a turn with what it was told."""

from collections.abc import Sequence
from itertools import takewhile

from threadkeep.backends.base import Usage
from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.message import JSON
from threadkeep.memory.session import Session
from threadkeep.memory.stream import Stream


def prompt(backend: LlamaCpp, messages: Sequence[JSON], reply: str = "") -> list[int]:
    """The tokens that the engine reads for these messages, and those of a reply after them."""
    template = backend._template()
    said = template.engine.ask("/tokenize", {"content": f"{template.rendered(messages)}{reply}", "parse_special": True})["tokens"]
    assert isinstance(said, list)
    return said


def begin_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many equal tokens both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def asked(session: Session, question: str) -> Stream:
    """A turn, read to its end."""
    with session.stream(question) as stream:
        for _ in stream:
            pass
    return stream


def usage(stream: Stream) -> Usage:
    """What the engine says it took."""
    assert stream.reply.usage is not None
    return stream.reply.usage
