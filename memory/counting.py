"""A counter as the assembler uses it: it counts messages as the profile sends them, and what comes in every turn only once."""

import json
from collections import OrderedDict
from collections.abc import Sequence

from threadkeep.memory.fitting import Profile, fit
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.tokens import Count, TokenCounter

REMEMBERED = 512
"""Messages whose counts are kept, those of the instructions above all."""


class Counting:
    """A backend's counter joined with its profile. Itself a `TokenCounter`. Safe to share between threads."""

    def __init__(self, counter: TokenCounter, profile: Profile) -> None:
        self.counter = counter
        self.profile = profile
        self._messages: OrderedDict[Message, Count] = OrderedDict()
        self._tools: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Tokenizer, template and what the profile makes of messages: equal names count alike."""
        return self.counter.name + self.profile.changes

    @property
    def additive(self) -> bool:
        return self.counter.additive

    def count(self, message: Message) -> Count:
        return self.counter.count(fit(message, self.profile))

    def count_again(self, message: Message) -> Count:
        """The count of a message that no entry's row holds, remembered for the next turn."""
        known = self._messages.get(message)
        if known is None:
            known = self._messages[message] = self.counter.count(message)
            while len(self._messages) > REMEMBERED:
                self._messages.popitem(last=False)
        return known

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        return self.counter.count_request(messages, tools=tools or None, response_format=response_format, counts=counts)

    def count_tools(self, messages: Sequence[Message], counts: Sequence[int], tools: Sequence[JSON]) -> int:
        """What the tools add to a request, remembered for the next turn."""
        if not tools:
            return 0
        key = json.dumps([tools, [message.role for message in messages]])
        if key not in self._tools:
            with_tools = self.count_request(messages, tools=tools, counts=counts).tokens
            self._tools[key] = with_tools - self.count_request(messages, counts=counts).tokens
            while len(self._tools) > REMEMBERED:
                self._tools.pop(next(iter(self._tools)))
        return self._tools[key]
