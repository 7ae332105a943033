"""The first token of a turn that brings 20 new tokens, everything before them being in the engine's cache: milliseconds, for each model.

A context of about 1,000 tokens. New is what the engine had not cached: the end of the last reply, what the template puts around a message,
and a question so long that it comes to 20. The milliseconds count from `session.stream` on; said beside them is how many passed before the
engine was asked, how much of the processor it took, and how fast the engine read the whole context at first. On a busy machine only the
processor's time tells: with `--threads 1` it is about what a machine at rest takes with one thread. Models that are not fetched are left
out, and named.

python benchmarks/new_tokens.py [model …] [--rounds N] [--context N] [--threads N]
"""

import argparse
import random
import tempfile
import time
from dataclasses import dataclass

from _common import median, text
from _engine import usage

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message
from threadkeep.memory.session import Session
from threadkeep.models.fetch import cached

MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
NEW = 20
"""Tokens."""


@dataclass(frozen=True)
class Turn:
    """One turn, in tokens and milliseconds."""

    prompt: int
    new: int
    first: float
    before: float
    processor: float


def turn(session: Session, question: str) -> Turn:
    """A turn with a reply of one token."""
    began, first, processor, spent = time.perf_counter(), 0.0, time.process_time(), 0.0
    with session.stream(question, max_tokens=1) as stream:
        for event in stream:
            if event.text and not first:
                first, spent = time.perf_counter(), time.process_time()
    said = usage(stream)
    assert said.first_token_ms is not None
    took = (first - began) * 1000
    return Turn(said.prompt_tokens, said.prompt_tokens - said.cached_tokens, took, took - said.first_token_ms, (spent - processor) * 1000)


def bringing(session: Session, rng: random.Random, wanted: int) -> list[Turn]:
    """Turns that each bring so many new tokens; the question's words follow what the turns before brought."""
    words, found = NEW - 10, list[Turn]()
    for _ in range(5 * wanted):
        made = turn(session, " ".join(text(rng, words, words).split()[:words]))
        if made.new == NEW:
            found.append(made)
            if len(found) == wanted:
                break
        else:
            words = max(1, words + (1 if made.new < NEW else -1))
    return found


def measured(name: str, rounds: int, context: int, threads: int | None) -> str:
    """A model's row of the table."""
    rng = random.Random(7)
    backend = LlamaCpp(name, window=context + 1024, parallel=1, temperature=0, threads=threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(f"sqlite:///{folder}/chat.db", backend=backend, budget=Budget(context + 1024), instructions="Answer in one word.") as memory,
    ):
        session = memory.session("long", owner="ada")
        while session.context().tokens < context:
            session.append(Message.user(text(rng, 10, 20)), Message.assistant(text(rng, 30, 50)))
        cold = turn(session, text(rng, 5, 5))
        warm = bringing(session, rng, rounds)
    backend.close()
    if not warm:
        return f"| {name} | no question brought {NEW} tokens | | | | |"
    first, before = median([one.first for one in warm]), median([one.before for one in warm])
    spent, speed = median([one.processor for one in warm]), cold.new / cold.processor * 1000
    return f"| {name} | {warm[0].prompt} | {first:.0f} | {before:.1f} | {spent:.0f} | {speed:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--context", type=int, default=1_000, help="tokens")
    parser.add_argument("--threads", type=int, help="of the engine; 1 where other work takes the cores")
    given = parser.parse_args()
    print(f"  {NEW} new tokens, milliseconds to the first of the reply:")
    print("  | model | tokens of context | in all | before the engine | of the processor | tokens read by a processor in a second |")
    print("  |---|---|---|---|---|---|")
    for name in given.models:
        if cached(name) is None:
            print(f"  {name} is not fetched: threadkeep models pull {name}")
            continue
        print(f"  {measured(name, given.rounds, given.context, given.threads)}", flush=True)


if __name__ == "__main__":
    main()
