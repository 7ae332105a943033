"""The rounds of tools within one turn: the model calls, the functions run, their results go back, until it answers."""

import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeAlias

from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.message import JSON, Message, ToolCall
from threadkeep.memory.runner import Here, Runner
from threadkeep.memory.tools import Ready, Toolbox, failed, is_async, told

Approve: TypeAlias = Callable[[ToolCall], bool | str | Awaitable[bool | str]]
"""Asked before a call's function runs: True runs it; False, or a text that says why, goes to the model in place of a result."""
MOST_ROUNDS = 8
"""How often a model may call tools in one turn, unless told otherwise."""
REFUSED = "Error: this call was not approved, and was not run"
LOOK_SECONDS = 0.05
"""How soon a function that runs elsewhere is left to itself, once nobody waits for its turn."""


class Rounds:
    """The calls of one turn, run round by round.

    Args:
        toolbox: what can be called.
        tool_choice: what the first request asks for. A tool that must be called must be so once.
        approve: asked for each call before any of its round runs, in order.
        most: rounds, from 1; after the last the model is asked once more, and may not call.

    Raises:
        InvalidSetting: an argument is of the wrong kind.
    """

    def __init__(self, toolbox: Toolbox, tool_choice: str | JSON | None, approve: Approve | None, most: int) -> None:
        if approve is not None and not callable(approve):
            raise InvalidSetting(f"approve={approve!r:.80}: a function of a ToolCall that gives True, False or a text, or None")
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InvalidSetting(f"max_rounds={most!r:.80}: a number of rounds, from 1; tool_choice='none' lets the model call nothing")
        self.runner: Runner = Here()
        """Where the functions run."""
        self._toolbox = toolbox
        self._choice = tool_choice
        self._approve = approve
        self._left_over = most

    def take(self, calls: Sequence[ToolCall]) -> bool:
        """Whether these calls are run here: every one is a function's, and there is a round for them."""
        return self._left_over > 0 and self._toolbox.runs(calls)

    def next_choice(self) -> str | JSON | None:
        """Count a round; the `tool_choice` of the request after it."""
        self._left_over -= 1
        if self._left_over == 0:
            return "none"
        return self._choice if self._choice in ("auto", "none") else None

    def results(self, calls: Sequence[ToolCall], left: Callable[[], bool]) -> Generator[Message, None, None]:
        """Each call's result, in the calls' order: models whose template has no ids tell results by it.

        Asynchronous functions run at once, all others one after the other. Where `left` says so, what runs is left to itself, and nothing
        more is given.
        """
        begun: list[Future[object] | Ready | str] = []
        try:
            allowed = [self._allowed(call, left) for call in calls]
            begun.extend(self.runner.on_loop(one.work) if isinstance(one, Ready) and one.asynchronous else one for one in allowed)
            for call, one in zip(calls, begun, strict=True):
                yield Message.tool(one if isinstance(one, str) else self._result(one, left), tool_call_id=call.id, name=call.name)
        except _Left:
            return
        finally:
            for one in begun:
                if isinstance(one, Future):
                    one.cancel()

    def close(self) -> None:
        """Let go of what the functions needed to run."""
        self.runner.close()

    def _allowed(self, call: ToolCall, left: Callable[[], bool]) -> Ready | str:
        """The call, if it can and may be run; otherwise what the model is told."""
        ready = self._toolbox.ready(call)
        if isinstance(ready, str) or self._approve is None:
            return ready
        asked = partial(self._approve, call)
        answer = self._value(self.runner.on_loop(asked) if is_async(self._approve) else self.runner.call(asked), left)
        if not isinstance(answer, bool | str):
            raise InvalidSetting(f"approve gave {answer!r:.80} for a call of {call.name}: True, False, or a text that says why not")
        return ready if answer is True else answer or REFUSED

    def _result(self, begun: Future[object] | Ready, left: Callable[[], bool]) -> str:
        """What the model is told of a call that was run."""
        try:
            return told(self._value(begun if isinstance(begun, Future) else self.runner.call(begun.work), left))
        except _Left:
            raise
        except Exception as error:  # noqa: BLE001  # a tool may fail in any way, and the model is told of it
            return failed(error)

    def _value(self, future: Future[object], left: Callable[[], bool]) -> object:
        """What a function gives, awaited where it must be."""
        while not wait([future], LOOK_SECONDS).done:
            if left():
                raise _Left
        value = future.result()
        return self._value(self.runner.on_loop(lambda: value), left) if inspect.isawaitable(value) else value


class _Left(Exception):
    """Nobody waits for the results any more."""
