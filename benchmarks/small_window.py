"""1,000 turns with a real engine whose window is 2,048 tokens: does a context ever overflow it, or is one refused that would have fitted?

smollm2-135m, replies of at most 8 tokens, in one session for each strategy: most turns with a window, a fifth each with the default
strategy and with summaries. Messages have from one word to more than the window holds; one turn in ten calls tools, whose results may be
longer than the window, too. Of each turn it is said whether the engine took it, whether the context cost what was counted, and whether the
window cut the reply. A context that cannot fit is right where the engine itself counts more for the instructions and the message alone than
a context may have; and one that fits is right where it counts no more.

By default with the model's first layer alone (`_layers.py`): the engine, the tokens, the template and the window are the same, its replies
are babble, which is the harder to count, and 1,000 turns take minutes. `--whole` takes the model as it is.

python benchmarks/small_window.py [--turns N] [--threads N] [--whole]
"""

import random
import tempfile
from collections import Counter
from pathlib import Path

from _common import text, verdict
from _layers import arguments

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.context import Context
from threadkeep.memory.errors import BackendError, CannotFit
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import Message, ToolCall
from threadkeep.memory.session import Session
from threadkeep.strategies.base import Strategy
from threadkeep.strategies.default import default_strategy
from threadkeep.strategies.rolling_summary import RollingSummary
from threadkeep.strategies.sliding_window import SlidingWindow

WINDOW, REPLY = 2048, 8
INSTRUCTIONS = "You help the customers of a small railway. Be friendly and short."
LENGTHS = (((1, 6), 30), ((8, 40), 50), ((60, 200), 12), ((300, 900), 5), ((1_000, 1_400), 2), ((1_850, 2_300), 1))
"""Words of a message, about a token each, and how often."""
SHARES: tuple[tuple[float, Strategy], ...] = ((0.6, SlidingWindow()), (0.2, default_strategy()), (0.2, RollingSummary()))
"""Of all turns, and their strategy."""


def message(rng: random.Random) -> Message:
    ((least, most),) = rng.choices([words for words, _ in LENGTHS], [often for _, often in LENGTHS])
    return Message.user(text(rng, least, most))


def calls(rng: random.Random) -> list[Message]:
    """One or two calls, and what came of them."""
    made = [ToolCall(f"call_{rng.randrange(10**6)}", "departures", '{"from": "harbour"}') for _ in range(rng.randint(1, 2))]
    results = [Message.tool(text(rng, 5, rng.choice((20, 200, 3_000))), tool_call_id=call.id, name=call.name) for call in made]
    return [Message.assistant(None, tool_calls=made), *results]


def answered(session: Session, backend: LlamaCpp, asked: Message, between: list[Message], seen: Counter[str]) -> Context:
    """One turn, with what the engine said of it."""
    with session.turn(asked) as turn:
        if between:
            turn.append(*between)
        context = turn.context
        words = list(backend.stream(context))
        used, finish = words[-1].usage, words[-1].finish
        assert used is not None
        turn.finish(Message.assistant("".join(event.text for event in words)), usage=used)
    seen["answered"] += 1
    seen["counted as the engine counts"] += context.tokens == used.prompt_tokens and context.exact
    seen["cut short by the window"] += finish == "length" and used.completion_tokens < REPLY
    seen["tokens"] += used.prompt_tokens
    seen["cached"] += used.cached_tokens
    seen["full"] += context.tokens > 0.9 * context.budget.ceiling
    return context


def converse(session: Session, backend: LlamaCpp, turns: int, rng: random.Random) -> Counter[str]:
    """What became of so many turns."""
    seen: Counter[str] = Counter()
    for _ in range(turns):
        asked = message(rng)
        between = calls(rng) if rng.random() < 0.1 else []
        alone = backend._template().tokens([Message.system(INSTRUCTIONS).to_dict(), asked.to_dict()])
        seen["with tools"] += bool(between)
        try:
            answered(session, backend, asked, between, seen)
            seen["fitted, and should not have"] += alone > WINDOW - REPLY
        except CannotFit:
            seen["cannot fit"] += 1
            seen["cannot fit, and should have"] += alone <= WINDOW - REPLY
            if alone <= WINDOW - REPLY:
                print(f"    did not fit: {alone} tokens alone, {len(between)} messages of tools")
        except BackendError as error:
            seen["refused by the engine"] += 1
            print(f"    {error}")
    return seen


def main() -> None:
    given, model = arguments(__doc__, turns=1_000)
    backend = LlamaCpp(model, window=WINDOW, parallel=1, temperature=1, seed=7, threads=given.threads)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for at, (share, strategy) in enumerate(SHARES):
            url = f"sqlite:///{Path(folder) / f'{at}.db'}"
            budget = Budget(WINDOW, reply=REPLY)
            with Memory(url, backend=backend, budget=budget, strategy=strategy, instructions=INSTRUCTIONS) as memory:
                session = memory.session("long", owner="ada")
                seen = converse(session, backend, round(share * given.turns), random.Random(at))
                print(f"  {strategy!r}, {len(session.entries(limit=10**6))} entries: {dict(seen)}", flush=True)
            total += seen
    for name in ("refused by the engine", "cut short by the window", "cannot fit, and should have", "fitted, and should not have"):
        verdict(f"turns {name}", total[name], 0)
    verdict("contexts that cost what was counted, share", total["counted as the engine counts"] / total["answered"], 1, least=True)


if __name__ == "__main__":
    main()
