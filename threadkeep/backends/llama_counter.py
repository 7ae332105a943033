"""Counts tokens exactly as the llama.cpp engine does: by the model's own template and tokenizer."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from threadkeep.backends.llama_template import Kind, Template, kind_of
from threadkeep.memory.errors import BackendError
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.tokens import Count

GUESSED_OVERHEAD = 8
"""Tokens for a message's share of a template that refuses it where it was tried."""


class LlamaCounter:
    """The counter of one model in the engine; the model is loaded at the first count."""

    def __init__(self, template: Callable[[], Template], name: str) -> None:
        self._template = template
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def additive(self) -> bool:
        return bool(self._template().pairs)

    def count(self, message: Message) -> Count:
        template = self._template()
        try:
            tokens = template.added(message.to_dict(), kind_of(message))
        except BackendError:
            return Count(template.words(message.text) + GUESSED_OVERHEAD, exact=False)
        return Count(max(tokens, 0), exact=self.additive)

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        """The engine's own `prompt_tokens` for the request; a response format adds nothing, since the engine's prompt does not show it.

        Raises:
            BackendError: the template refuses the messages.
        """
        template = self._template()
        if counts is not None:
            total = _added_up(template, messages, tools, counts)
            if total is not None:
                return Count(total)
        return Count(template.tokens([message.to_dict() for message in messages], tools))


def _added_up(template: Template, messages: Sequence[Message], tools: Sequence[JSON] | None, counts: Sequence[int]) -> int | None:
    """The sum, without reading the texts again; None where these messages do not add up."""
    if len(messages) != len(counts) or not messages or not template.pairs:
        return None
    kinds: list[Kind] = [kind_of(message) for message in messages]
    if any(pair not in template.pairs for pair in pairwise(kinds)):
        return None
    led = kinds[0] == "system"
    if not led and kinds[0] != "user":
        return None
    head = template.head(messages[0].text if led else None, tools)
    return None if head is None else head + sum(counts[1:] if led else counts)
