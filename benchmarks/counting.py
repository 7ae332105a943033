"""How much text is counted in a session's life, and what counting a whole request again would cost.

300 turns by a script, with instructions and a budget of 2,000 tokens: the characters handed to the counter's `count`, over the characters
stored. Each message is counted once, at its append; the instructions once. Apart from that, a request of about 4,000 tokens is counted by
adding up the stored counts and by reading it again, as a counter must whose template is not additive.

python benchmarks/counting.py
"""

import random
import tempfile
from collections.abc import Sequence

from _common import conversation, in_turn, median, text, verdict

from threadkeep.backends.scripted import ScriptedBackend
from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.tokens import Count
from threadkeep.strategies.sliding_window import SlidingWindow

TURNS = 300


class Listening:
    """A counter that remembers how many characters it was handed to count."""

    additive = True

    def __init__(self) -> None:
        self._counter = TiktokenCounter("o200k_base")
        self.name = self._counter.name
        self.characters = 0

    def count(self, message: Message) -> Count:
        self.characters += len(message.text)
        return self._counter.count(message)

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        if counts is None:
            self.characters += sum(len(message.text) for message in messages)
        return self._counter.count_request(messages, tools=tools, response_format=response_format, counts=counts)


def main() -> None:
    rng, counter = random.Random(7), Listening()
    backend = ScriptedBackend(lambda _: text(rng, 30, 50))
    instructions = "You help the customers of a small railway. " * 10
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/chat.db"
        with Memory(
            url, backend=backend, counter=counter, budget=Budget(2_000), instructions=instructions, strategy=SlidingWindow()
        ) as memory:
            session = memory.session("counted", owner="ada")
            for _ in range(TURNS):
                session.chat(text(rng, 10, 20))
            stored = sum(len(entry.message.text) for entry in session.entries(limit=2 * TURNS))
    print(f"  {TURNS} turns: {stored:,} characters stored, {counter.characters:,} counted")
    verdict("characters counted per stored one", counter.characters / stored, 1.1)

    messages = [Message.system(instructions), *conversation(rng, 86, words=(30, 50))]
    exact = TiktokenCounter("o200k_base")
    counts = [exact.count(message).tokens for message in messages]
    tokens = exact.count_request(messages, counts=counts).tokens
    added, again = map(median, in_turn(100, lambda: exact.count_request(messages, counts=counts), lambda: exact.count_request(messages)))
    print(f"  a request of {tokens:,} tokens: {added:.3f} ms by adding up, {again:.2f} ms by reading it again")


if __name__ == "__main__":
    main()
