"""Counts for a model whose tokenizer is not known, on the high side."""

from collections.abc import Sequence

from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.fitting import THOUGHT
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.tokens import Count

MARGIN = 1.3
"""Times what `o200k_base` counts: see docs/openai_backend.md for how other tokenizers compare."""
BEYOND_ASCII = 4
"""Of so many bytes that are no ASCII, one token more: smaller vocabularies know few words of other scripts."""
PER_MESSAGE = 4
"""Tokens more for each message's share of a template."""


class EstimatingCounter:
    """Estimates tokens as those of `o200k_base` and 30 % more, a token for every 4 bytes of other scripts, and 4 a message. Never exact.

    The vocabulary is loaded when first needed, as `TiktokenCounter` does.
    """

    additive = True
    name = f"estimate/o200k_base*{MARGIN}+bytes/{BEYOND_ASCII}+{PER_MESSAGE}"

    def __init__(self) -> None:
        self._counter = TiktokenCounter("o200k_base")

    def __repr__(self) -> str:
        return "EstimatingCounter()"

    def count(self, message: Message) -> Count:
        """What one message adds to a request, at most, if the tokenizer is not much worse than usual."""
        texts = (message.text, *(call.arguments for call in message.tool_calls), str(message.extra.get(THOUGHT, "")))
        beyond = sum(_bytes_beyond_ascii(text) for text in texts)
        tokens = _widened(self._counter.count(message).tokens) + -(-beyond // BEYOND_ASCII) + PER_MESSAGE
        return Count(tokens, exact=False)

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        """What a whole request costs.

        Raises:
            InvalidSetting: there are not as many counts as messages.
        """
        counts = [self.count(message).tokens for message in messages] if counts is None else counts
        alone = self._counter.count_request(messages, counts=counts).tokens - sum(counts)
        beside = self._counter.count_request([], tools=tools, response_format=response_format).tokens
        return Count(sum(counts) + alone + _widened(beside), exact=False)


def _widened(tokens: int) -> int:
    return -int(-tokens * MARGIN // 1)


def _bytes_beyond_ascii(text: str) -> int:
    return 0 if text.isascii() else len(text.encode(errors="surrogatepass")) - len(text.encode("ascii", "ignore"))
