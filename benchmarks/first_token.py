"""How much later the first token comes through `session.stream` than from the engine itself, asked with the same warm prompt.

smollm2-135m with a window of 8,192, at about 1,000 and 4,000 tokens of context. In each round one new question is asked of a session and
of the engine directly, with the very messages that the session sends; which of the two goes first alternates, the other's cache has then
read the question, so each is asked after the engine has read everything but the question. What is reported is the difference of each
pair, and the time before the engine is asked, which other work on the machine disturbs less. All questions take equally many tokens: the
engine reads a new token in 20 ms at a context of 4,000.

python benchmarks/first_token.py [--rounds N]
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator

from _common import median, text, verdict

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.session import Session


def direct(backend: LlamaCpp, messages: list[dict[str, object]]) -> float:
    """Milliseconds until the engine's first token, by its own call, nothing of threadkeep between."""
    first: list[float] = []

    def heard(chunk: JSON) -> bool:
        choices = chunk.get("choices")
        if not first and isinstance(choices, list) and choices and choices[0]["delta"].get("content"):
            first.append(time.perf_counter())
        return False

    body = {"messages": messages, "max_tokens": 1, "temperature": 0, "stream": True, "cache_prompt": True}
    server = backend._template().engine.server  # the very engine
    began = time.perf_counter()
    server.handle_chat_completions(body, heard)
    return (first[0] - began) * 1000


def through(session: Session, question: str) -> tuple[float, float]:
    """Milliseconds until the first token of a turn (question stored, context assembled, engine asked); of them, those beside the engine."""
    began, first = time.perf_counter(), 0.0
    with session.stream(question, max_tokens=1) as stream:
        for event in stream:
            if event.text and not first:
                first = time.perf_counter()
    took = (first - began) * 1000
    assert stream.reply.usage is not None
    assert stream.reply.usage.first_token_ms is not None
    return took, took - stream.reply.usage.first_token_ms


def fill(session: Session, rng: random.Random, tokens: int) -> None:
    """Make the log so long."""
    while session.context().tokens < tokens:
        session.append(Message.user(text(rng, 10, 20)), Message.assistant(text(rng, 30, 50)))


def equally_long(backend: LlamaCpp, rng: random.Random, wanted: int) -> list[str]:
    """Questions of the same number of tokens."""
    found: dict[int, list[str]] = {}
    while True:
        question = text(rng, 1, 1)
        alike = found.setdefault(backend.counter.count(Message.user(question)).tokens, [])
        alike.append(question)
        if len(alike) == wanted:
            return alike


def pairs(backend: LlamaCpp, session: Session, rng: random.Random, rounds: int) -> Iterator[tuple[float, float, float]]:
    """Direct and through the session, a question each, after the same prompt; and the session's own part."""
    for at in range(rounds):
        questions = equally_long(backend, rng, 3)
        warm, asked = (session.context(question, max_tokens=1).messages for question in questions[:2])
        direct(backend, warm)
        if at % 2:
            (ours, beside), theirs = through(session, questions[2]), direct(backend, asked)
        else:
            theirs, (ours, beside) = direct(backend, asked), through(session, questions[2])
        yield theirs, ours, beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 4_000], help="tokens of context")
    given = parser.parse_args()
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        backend = LlamaCpp("smollm2-135m", window=8192, temperature=0)
        with Memory(f"sqlite:///{folder}/chat.db", backend=backend, budget=Budget(8192), instructions="Answer in one word.") as memory:
            for length in given.lengths:
                session = memory.session(f"{length}", owner="ada")
                fill(session, rng, length)
                _warmed, *measured = pairs(backend, session, rng, given.rounds + 1)
                theirs, ours, beside = map(median, zip(*measured, strict=True))
                tokens = session.context().tokens
                print(f"  {tokens} tokens: engine {theirs:.1f} ms, session.stream {ours:.1f} ms, {beside:.1f} ms before it asks the engine")
                verdict("added to the first token, median of pairs, ms", median([one - other for other, one, _ in measured]), 10)


if __name__ == "__main__":
    main()
