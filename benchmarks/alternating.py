"""Does a session find what the engine read of it before, when others asked in between? And does nobody wait for ever?

Sessions ask by turns, 30 turns each, with smollm2-135m and a window of 2,048 tokens, so that the window's cut moves on the way. What a
session had seen is the beginning that its request shares, token by token, with its last request and the reply to it; the engine cannot
have cached more of it than that, but for the one token that it reads again to answer. Cached is what the engine says. Two sessions share
one slot and four, with short instructions and with such as make up most of a session's beginning; six share four.

Then eight sessions ask at once and again and again, where two are answered at a time: how many requests that came later were answered
earlier. With `--whole`, too: how long a short question waits behind a long one.

By default with the model's first layer alone (`_layers.py`), whose tokens are the same; `--whole` takes the model as it is.

python benchmarks/alternating.py [--turns N] [--threads N] [--whole]
"""

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _common import median, text, verdict
from _engine import asked, begin_alike, prompt, usage
from _layers import arguments

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.memory import Memory
from threadkeep.memory.session import Session

WINDOW = 2048
REPLY = 12
SHORT = "You help the customers of a small railway. Be friendly and short."
LONG = SHORT + " " + text(random.Random(1), 600, 600)
PLANS = ((1, 2, SHORT), (4, 2, SHORT), (1, 2, LONG), (4, 2, LONG), (4, 6, SHORT), (4, 6, LONG))
"""Conversations answered at once, sessions, their instructions."""


@contextmanager
def sessions(
    model: str | Path, parallel: int, count: int, instructions: str, threads: int | None
) -> Iterator[tuple[LlamaCpp, list[Session]]]:
    """So many sessions of one memory, and the engine that answers them."""
    backend = LlamaCpp(model, window=WINDOW, parallel=parallel, temperature=0, threads=threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(f"sqlite:///{folder}/chat.db", backend=backend, budget=Budget(WINDOW, reply=REPLY), instructions=instructions) as memory,
    ):
        yield backend, [memory.session(f"session {number}", owner="ada") for number in range(count)]
    backend.close()


def alternate(backend: LlamaCpp, sharing: Sequence[Session], turns: int) -> tuple[int, int, int, float]:
    """Tokens of all prompts, of what their sessions had seen, of what was cached; and the least share of a turn."""
    rng = random.Random(7)
    last: dict[str, list[int]] = {}
    prompts = seen = cached = 0
    least = 1.0
    for _ in range(turns):
        for session in sharing:
            stream = asked(session, text(rng, 30, 60))
            said = usage(stream)
            read = prompt(backend, stream.context.messages)
            assert len(read) == said.prompt_tokens
            shared = min(begin_alike(last.get(session.name, []), read), len(read) - 1)
            prompts += said.prompt_tokens
            if shared:
                seen += shared
                cached += min(said.cached_tokens, shared)
                least = min(least, said.cached_tokens / shared)
            last[session.name] = prompt(backend, stream.context.messages, stream.reply.text)
    return prompts, seen, cached, least


@dataclass
class Served:
    """One request: when it was made, and when its first token came."""

    session: str
    asked: float
    first: float = 0.0


def crowd(sharing: Sequence[Session], rounds: int) -> list[Served]:
    """Every session asks in a thread of its own, again as soon as it is answered."""
    requests: list[Served] = []

    def talk(session: Session, rng: random.Random) -> None:
        for _ in range(rounds):
            with session.stream(text(rng, 40, 40)) as stream:
                request = Served(session.name, time.perf_counter())
                requests.append(request)
                for event in stream:
                    if event.text and not request.first:
                        request.first = time.perf_counter()

    threads = [threading.Thread(target=talk, args=(session, random.Random(at))) for at, session in enumerate(sharing)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests


def overtaken(requests: Sequence[Served]) -> int:
    """The most requests that came after another one and were answered before it."""
    return max(sum(other.asked > one.asked and other.first < one.first for other in requests) for one in requests)


def waits(first: Session, second: Session) -> float:
    """Milliseconds until the first token of a short question, asked just after a long one of another session."""
    rng = random.Random(time.time())
    begun = threading.Event()

    def long() -> None:
        with first.stream(text(rng, 1200, 1200)) as stream:
            begun.set()
            for _ in stream:
                pass

    thread = threading.Thread(target=long)
    thread.start()
    begun.wait()
    time.sleep(0.2)
    said = usage(asked(second, text(rng, 10, 10)))
    thread.join()
    assert said.first_token_ms is not None
    return said.first_token_ms


def main() -> None:
    given, model = arguments(__doc__, turns=30)
    for parallel, count, instructions in PLANS:
        with sessions(model, parallel, count, instructions, given.threads) as (backend, sharing):
            prompts, seen, cached, least = alternate(backend, sharing, given.turns)
        print(f"  {count} sessions, {parallel} at once, instructions of {len(instructions.split())} words, {given.turns} turns each:")
        print(f"    {prompts:,} tokens of prompts, {seen:,} seen before, {cached:,} of them cached; least of a turn {least:.3f}")
        verdict("  cached of what was seen before", cached / seen, 0.9, least=True)
    with sessions(model, 2, 8, SHORT, given.threads) as (_, sharing):
        requests = crowd(sharing, 10)
        waited = [(request.first - request.asked) * 1000 for request in requests]
        print(f"  8 sessions ask at once, 2 are answered at a time: the wait is {median(waited):.0f} ms, at most {max(waited):.0f}")
        verdict("requests that were overtaken by later ones, the most of any", overtaken(requests), 2)
    if not given.whole:
        return
    with sessions(model, 2, 3, SHORT, given.threads) as (_, sharing):
        asked(sharing[1], "Hello.")
        alone = usage(asked(sharing[1], "And now?")).first_token_ms
        print(f"  a short question alone: {alone:.0f} ms; beside another's of 1,200 words: {waits(sharing[0], sharing[1]):.0f} ms")


if __name__ == "__main__":
    main()
