"""How much of a context the model has read before: tokens of the beginning that consecutive turns share, for several steps of the window.

500 made-up turns of about 70 tokens at a ceiling of 4,096, counted by tiktoken's counter. Reuse is the shared tokens of all turns but the
first over the tokens of their contexts; fill is a context's share of the ceiling, once the log no longer fits. A larger step moves the
window's cut more seldom and leaves it emptier: the table in docs/sliding_window.md is printed here.

The same for compositions of a window and recall: there reuse is that of the part before the recalled block, which changes with every
question.

`--model`: 30 real turns on the smallest bundled model, with a budget of about 1,000 tokens, to compare the tokens that its engine says it
had cached with those that the shared beginnings predict.

python benchmarks/prefix_reuse.py [--turns N] [--model]
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from _common import text, verdict

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import JSON, Message, read_message
from threadkeep.memory.tokens import TokenCounter
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.compose import Compose
from threadkeep.strategies.default import default_strategy
from threadkeep.strategies.recall import Recall
from threadkeep.strategies.sliding_window import SlidingWindow

STEPS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.5)
COMPOSED = ((0.3, 0.25), (0.3, 0.5), (0.4, 0.25), (0.4, 0.5), (0.5, 0.25), (0.5, 0.5))
"""A window's share and its step."""
CEILING = 4096
INSTRUCTIONS = (
    "You help the customers of a small railway. Be friendly and short, never invent a departure, and ask for the station when it is not "
    "said. Prices are in euros; children under six travel free with a grown-up. Answer in the customer's language."
)


@dataclass
class Measured:
    """What one step came to, turn by turn."""

    before: list[dict[str, object]] = field(default_factory=list)
    shared: int = 0
    tokens: int = 0
    fills: list[float] = field(default_factory=list)
    moves: int = 0

    def take(self, context: Context, cost: Callable[[JSON], int]) -> None:
        recalled = any(pick.kind == "excerpt" for pick in context.picks)
        steady = context.messages[:-2] if recalled else context.messages
        if self.before:
            self.shared += shared_tokens(self.before, steady, cost)
            self.tokens += sum(map(cost, steady)) if recalled else context.tokens
            self.moves += steady[1] != self.before[1]
        self.before = steady
        if any(decision.verdict == "left out" for decision in context.decisions):
            self.fills.append(context.tokens / context.budget.ceiling)

    @property
    def reuse(self) -> float:
        return self.shared / self.tokens

    @property
    def fill(self) -> float:
        return sum(self.fills) / len(self.fills)


def composition(share: float, step: float) -> Strategy:
    return Compose(SlidingWindow(step), Recall(), shares=(share, 1 - share))


def shared_tokens(before: Sequence[JSON], now: Sequence[JSON], cost: Callable[[JSON], int]) -> int:
    """Tokens of the messages with which both begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    return sum(cost(message) for _, message in same)


def remembered(counter: TokenCounter) -> Callable[[JSON], int]:
    """A message's cost, counted once."""
    known: dict[str, int] = {}

    def cost(message: JSON) -> int:
        key = f"{message['role']} {message['content']}"
        if key not in known:
            known[key] = counter.count(read_message(message)).tokens
        return known[key]

    return cost


def simulate(turns: int, strategies: Sequence[Strategy]) -> list[Measured]:
    """Every strategy over the same conversation."""
    rng, counter = random.Random(7), TiktokenCounter("o200k_base")
    cost, measured = remembered(counter), [Measured() for _ in strategies]
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(f"sqlite:///{folder}/chat.db", budget=Budget(CEILING), counter=counter, instructions=INSTRUCTIONS) as memory,
    ):
        session = memory.session("simulated", owner="ada")
        for _ in range(turns):
            asked, said = Message.user(text(rng, 10, 20)), Message.assistant(text(rng, 30, 50))
            for strategy, one in zip(strategies, measured, strict=True):
                one.take(session.context(asked, strategy=strategy), cost)
            session.append(asked, said)
        tokens = sum(cost(entry.raw) for entry in session.entries(limit=2 * turns))
    print(f"  {turns} turns of {tokens / turns:.0f} tokens, ceiling {CEILING:,}")
    return measured


def real(turns: int) -> None:
    """The engine's own figures beside the prediction."""
    rng = random.Random(7)
    backend = LlamaCpp("smollm2-135m", window=2048, temperature=0)
    cost = remembered(backend.counter)
    before: list[dict[str, object]] = []
    cached, predicted, prompts = 0, 0, 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(
            f"sqlite:///{folder}/chat.db",
            backend=backend,
            budget=Budget(1016, reply=16),
            instructions=INSTRUCTIONS,
            strategy=SlidingWindow(),
        ) as memory,
    ):
        session = memory.session("real", owner="ada")
        for _ in range(turns):
            with session.stream(text(rng, 10, 20)) as stream:
                for _ in stream:
                    pass
            assert stream.reply.usage is not None
            cached += stream.reply.usage.cached_tokens
            prompts += stream.reply.usage.prompt_tokens
            predicted += shared_tokens(before, stream.context.messages, cost)
            before = [*stream.context.messages, stream.reply.message.to_dict()]  # the engine keeps what it wrote, too
    print(f"  {turns} real turns: {prompts:,} tokens of prompts, {cached:,} cached by the engine's word, {predicted:,} predicted")
    verdict("difference from the prediction", abs(cached - predicted) / predicted, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--model", action="store_true", help="30 real turns on smollm2-135m, too")
    given = parser.parse_args()
    measured = dict(zip(STEPS, simulate(given.turns, [SlidingWindow(step) for step in STEPS]), strict=True))
    print("  | step | prefix reuse | mean fill | turns from one move of the cut to the next |\n  |---|---|---|---|")
    for step, one in measured.items():
        print(f"  | {step:g} | {one.reuse:.3f} | {one.fill:.3f} | {given.turns / max(1, one.moves):.0f} |")
    default = measured[SlidingWindow().step]
    verdict("prefix reuse at the default step", default.reuse, 0.91, least=True)
    verdict("mean fill at the default step", default.fill, 0.85, least=True)
    composed = dict(zip(COMPOSED, simulate(given.turns, [composition(*one) for one in COMPOSED]), strict=True))
    print("  | window's share | its step | prefix reuse before the recalled block | mean fill |\n  |---|---|---|---|")
    for (share, step), together in composed.items():
        print(f"  | {share:g} | {step:g} | {together.reuse:.3f} | {together.fill:.3f} |")
    (chosen,) = simulate(given.turns, [default_strategy()])
    verdict("prefix reuse before the recalled block, default strategy", chosen.reuse, 0.85, least=True)
    verdict("mean fill, default strategy", chosen.fill, 0.75, least=True)
    if given.model:
        real(30)


if __name__ == "__main__":
    main()
