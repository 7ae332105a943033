"""Whether a context keeps its promises, judged from the log and the request alone: for tests of strategies.

Nothing here asks the assembler. What a context must and may hold is worked out a second time, from the rules, and compared.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, pairwise, takewhile

from threadkeep.memory.clipping import clip
from threadkeep.memory.context import Context
from threadkeep.memory.fitting import Profile, fit
from threadkeep.memory.message import JSON, Message, Part, TextPart
from threadkeep.memory.repair import INTERRUPTED, OPENING, UNANSWERED
from threadkeep.memory.tokens import TokenCounter

INSTRUCTING = ("system", "developer")


@dataclass(frozen=True)
class Log:
    """A session's messages, the entry of seq 1 first; what belongs together is worked out from them."""

    messages: tuple[Message, ...]
    pinned: frozenset[int] = frozenset()
    replaced: frozenset[int] = frozenset()
    """Seqs of partial replies that a retry leaves out."""

    def __getitem__(self, seq: int) -> Message:
        return self.messages[seq - 1]

    @property
    def head(self) -> int:
        return len(self.messages)

    @cached_property
    def leading(self) -> int:
        """How many messages the log begins with that instruct."""
        return next((at for at, message in enumerate(self.messages) if message.role not in INSTRUCTING), len(self.messages))

    @cached_property
    def groups(self) -> list[list[int]]:
        """The seqs of each group, oldest first; late results and leading messages are in none."""
        groups: list[list[int]] = []
        still_open: list[str] = []
        for seq in range(self.leading + 1, self.head + 1):
            message = self[seq]
            if message.role != "tool":
                groups.append([seq])
                still_open = [call.id for call in message.tool_calls]
            elif message.tool_call_id in still_open:
                groups[-1].append(seq)
                still_open.remove(str(message.tool_call_id))
            else:
                still_open = []  # any other entry closes the group
        return [group for group in groups if group[0] not in self.replaced]

    @cached_property
    def showable(self) -> frozenset[int]:
        """Seqs that may stand in a context, leading ones apart."""
        return frozenset(seq for group in self.groups for seq in group)

    @cached_property
    def live(self) -> int:
        """The seq of the live user message; 0 where there is none."""
        return max((seq for seq in self.showable if self[seq].role == "user"), default=0)

    @cached_property
    def must(self) -> frozenset[int]:
        """Seqs that stand in every context, leading ones apart."""
        wanted = (self.pinned & self.showable) | ({self.live} - {0}) | set(self.groups[-1] if self.groups else ())
        return frozenset(seq for group in self.groups if wanted & set(group) for seq in group)


@dataclass(frozen=True)
class Asked:
    """What a context is asked for with, beside the log."""

    counter: TokenCounter
    profile: Profile = field(default_factory=Profile)
    instructions: str | None = None
    tools: Sequence[JSON] = ()
    response_format: JSON | None = None

    def cost(self, messages: Sequence[Message]) -> int:
        """What a request of these messages takes, counted whole."""
        return self.counter.count_request(messages, tools=self.tools or None, response_format=self.response_format).tokens

    def cost_of(self, message: Message) -> int:
        """What one message takes as the profile sends it."""
        return self.counter.count(fit(message, self.profile)).tokens

    def sent(self, message: Message) -> dict[str, object]:
        """A message in OpenAI's format with the profile's keys only."""
        return {key: value for key, value in message.to_dict().items() if key in self.profile.keys}


def smallest(log: Log, asked: Asked) -> int:
    """Tokens of the smallest valid context: must-keeps only, with every result that is not pinned at its cheapest."""
    shown: dict[int, int | None] = {}
    for seq in log.must:
        message = log[seq]
        shorter = message.role == "tool" and seq not in log.pinned and asked.cost_of(clip(message, 0)) < asked.cost_of(message)
        shown[seq] = 0 if shorter else None
    return asked.cost(rebuilt(log, asked, shown))


def whole(log: Log, asked: Asked) -> int:
    """Tokens of the context that leaves nothing out."""
    return asked.cost(rebuilt(log, asked, dict.fromkeys(log.showable)))


def rebuilt(log: Log, asked: Asked, shown: Mapping[int, int | None]) -> list[Message]:
    """The request that shows these entries: seq and, where a result is clipped, its kept characters."""
    messages = [Message.system(asked.instructions)] if asked.instructions else []
    messages += [log[seq] for seq in range(1, log.leading + 1)]
    for group in log.groups:
        kept = [seq for seq in group if seq in shown]
        messages += [log[seq] if (keep := shown[seq]) is None else clip(log[seq], keep) for seq in kept]
        if kept and asked.profile.tools:
            answered = Counter(log[seq].tool_call_id for seq in group[1:])
            for call in log[group[0]].tool_calls:
                answered[call.id] -= 1
                if answered[call.id] < 0:
                    messages.append(Message("tool", INTERRUPTED, tool_call_id=call.id))
    return _in_shape([fit(message, asked.profile) for message in messages], asked.profile)


def _in_shape(messages: list[Message], profile: Profile) -> list[Message]:
    if profile.system == "first":
        at = next((at for at, message in enumerate(messages) if message.role not in INSTRUCTING), len(messages))
        later = [Message.user(f"[system]\n{one.text}") if one.role in INSTRUCTING else one for one in messages[at:]]
        messages = ([_merged(messages[:at])] if at else []) + later
    if not profile.alternation:
        return messages
    at = next((at for at, message in enumerate(messages) if message.role not in INSTRUCTING), len(messages))
    if at < len(messages) and messages[at].role != "user":
        messages = [*messages[:at], Message.user(OPENING), *messages[at:]]
    runs = [list(run) for _, run in groupby(messages, key=lambda message: message.role)]
    turns = [message for run in runs for message in ([_merged(run)] if run[0].role in ("user", "assistant") else run)]
    before = ["", *(turn.role for turn in turns)]
    gaps = [(role, turn.role) == ("tool", "user") for role, turn in zip(before, turns, strict=False)]
    return [message for turn, gap in zip(turns, gaps, strict=True) for message in ([Message.assistant(UNANSWERED)] * gap + [turn])]


def _merged(messages: Sequence[Message]) -> Message:
    """Messages of one role as one, a blank line between."""
    calls = tuple(call for message in messages for call in message.tool_calls)
    contents = [message.content for message in messages if message.content is not None]
    texts = [content for content in contents if isinstance(content, str)]
    content: str | tuple[Part, ...] | None = "\n\n".join(texts) if texts else None
    if len(texts) < len(contents):
        parts: list[Part] = []
        for given in contents:
            of_one = [TextPart(given)] if isinstance(given, str) else list(given)
            parts += [TextPart("\n\n"), *of_one] if parts and of_one else of_one
        content = tuple(parts)
    return replace(messages[0], content=content, tool_calls=calls)


def violations(context: Context, log: Log, asked: Asked) -> list[str]:
    """What a context breaks, each as a promise's number and a sentence; nothing where it keeps all that is promised."""
    sent = [Message.from_dict(message) for message in context.messages]
    return [
        *_p1(context, sent, asked),
        *_p2(sent, log, asked),
        *_p3(context, sent, log, asked),
        *_p4(context, log, asked),
        *_p5(context, log, asked),
        *_what_the_account_says(context, log, asked),
        *_profile(context, sent, asked.profile),
    ]


def _p1(context: Context, sent: Sequence[Message], asked: Asked) -> Iterator[str]:
    if context.tokens > context.budget.ceiling:
        yield f"P1: {context.tokens} tokens, and the budget leaves {context.budget.ceiling}"
    counted = asked.cost(sent)
    if counted != context.tokens:
        yield f"P1: said to take {context.tokens} tokens, and takes {counted}"


def _p2(sent: Sequence[Message], log: Log, asked: Asked) -> Iterator[str]:
    wanted = [("instructions", Message.system(asked.instructions))] if asked.instructions else []
    wanted += [(f"leading entry {seq}", log[seq]) for seq in range(1, log.leading + 1)]
    wanted += [(f"pinned entry {seq}", log[seq]) for seq in sorted(log.pinned & log.showable)]
    wanted += [(f"live user message {log.live}", log[log.live])] if log.live else []
    for name, message in wanted:
        if not _stands(message, sent, asked.profile):
            yield f"P2: the {name} does not stand unbroken in a message of its role"


def _stands(message: Message, sent: Sequence[Message], profile: Profile) -> bool:
    """Whether every text of a message stands unbroken in one message of its role, as the profile names that."""
    roles: set[str] = {message.role}
    if message.role in INSTRUCTING:
        if profile.system == "first":
            roles = {*INSTRUCTING, "user"}
        elif not profile.developer:
            roles = {"system"}
    elif message.role == "tool" and not profile.tools:
        roles = {"user"}
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    held = [[part.text for part in one.parts if isinstance(part, TextPart)] for one in sent if one.role in roles]
    return any(all(any(text in there for there in parts) for text in texts) for parts in held)


def _p3(context: Context, sent: Sequence[Message], log: Log, asked: Asked) -> Iterator[str]:
    at = 0
    while at < len(sent):
        message = sent[at]
        results = list(takewhile(lambda one: one.role == "tool", sent[at + 1 :]))
        calls, answers = [call.id for call in message.tool_calls], [str(result.tool_call_id) for result in results]
        if sorted(calls) != sorted(answers):
            yield f"P3: message {at} calls {calls}, and results of {answers} follow"
        if not asked.profile.tools and (message.tool_calls or message.role == "tool"):
            yield f"P3: message {at} speaks of tools, and the profile knows none"
        at += 1 + len(results)
    shown = shown_by(context)
    for group in log.groups:
        if len(shown.keys() & set(group)) not in (0, len(group)):
            yield f"P3: of the group {group} only {sorted(shown.keys() & set(group))} is shown"


def _p4(context: Context, log: Log, asked: Asked) -> Iterator[str]:
    if whole(log, asked) <= context.budget.ceiling:
        everything = [asked.sent(message) for message in rebuilt(log, asked, dict.fromkeys(log.showable))]
        if context.messages != everything:
            needed = f"{whole(log, asked)} of {context.budget.ceiling} tokens"
            yield f"P4: the log fits whole, in {needed}, and is changed: {_difference(context.messages, everything)}"


def _p5(context: Context, log: Log, asked: Asked) -> Iterator[str]:
    ends = [0]
    for decision in context.decisions:
        if decision.first != ends[-1] + 1 or decision.last < decision.first:
            yield f"P5: a decision on {decision.first} to {decision.last} follows one that ends at {ends[-1]}"
        ends.append(decision.last)
    if ends[-1] != log.head:
        yield f"P5: the decisions end at {ends[-1]}, the log at {log.head}"
    total = sum(pick.tokens for pick in context.picks) + context.tools_tokens + context.overhead
    if total != context.tokens:
        yield f"P5: picks, tools and overhead add up to {total}, the context takes {context.tokens}"
    decided = sum(decision.tokens for decision in context.decisions)
    shown = shown_by(context)
    picked = sum(pick.tokens for pick in context.picks if pick.kind in ("instructions", "entries") or not shown.keys() >= set(pick.seqs))
    spoken = asked.cost_of(Message.system(asked.instructions)) if asked.instructions else 0
    if decided + spoken != picked:
        yield f"P5: decisions come to {decided} tokens and the instructions to {spoken}, the picks of them to {picked}"


def _what_the_account_says(context: Context, log: Log, asked: Asked) -> Iterator[str]:
    """Where only entries stand in it, the account alone is enough to make the same request again."""
    shown = shown_by(context)
    unknown = sorted(seq for seq in shown if seq > log.leading and seq not in log.showable)
    if unknown:
        yield f"P5: {unknown} can never be shown, and are said to be kept"
    elif all(pick.text is None for pick in context.picks):
        again = [asked.sent(message) for message in rebuilt(log, asked, shown)]
        if again != context.messages:
            yield f"P5: the request is not what the decisions say: {_difference(context.messages, again)}"


def _difference(given: Sequence[JSON], wanted: Sequence[JSON]) -> str:
    at = next((at for at, (one, other) in enumerate(zip(given, wanted, strict=False)) if one != other), min(len(given), len(wanted)))
    return f"of {len(given)} messages for {len(wanted)}, message {at} is {[*given, None][at]!r:.300}, not {[*wanted, None][at]!r:.300}"


def shown_by(context: Context) -> dict[int, int | None]:
    """What a context says it shows: seqs, and the kept characters of clipped ones."""
    kept = dict(json.loads(json.dumps(context.manifest["clipped"])))
    return {
        seq: kept.get(seq) if decision.verdict == "clipped" else None
        for decision in context.decisions
        if decision.verdict in ("kept", "clipped")
        for seq in range(decision.first, decision.last + 1)
    }


def _profile(context: Context, sent: Sequence[Message], profile: Profile) -> Iterator[str]:
    """A profile is part of P1 to P3: what the model does not accept is no context."""
    for message in context.messages:
        if not message.keys() <= profile.keys:
            yield f"profile: keys {sorted(message.keys() - profile.keys)} are not allowed"
    pattern = profile.tool_ids
    for identity in _tool_ids(sent) if pattern else ():
        if not re.fullmatch(str(pattern), identity):
            yield f"profile: the tool id {identity!r} does not match {pattern}"
    roles = [message.role for message in sent]
    if profile.system == "first" and any(role in INSTRUCTING for role in roles[1:]):
        yield f"profile: a system message stands behind the first: {roles}"
    if not profile.images and any(part.to_dict()["type"] == "image_url" for message in sent for part in message.parts):
        yield "profile: a picture is sent"
    if profile.alternation:
        spoken = [role for role in roles if role not in INSTRUCTING]
        same = [role for role, after in pairwise(roles) if role == after and role in ("user", "assistant")]
        if same or (spoken and spoken[0] != "user") or ("tool", "user") in pairwise(roles):
            yield f"profile: user and assistant do not take turns: {roles}"


def _tool_ids(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        yield from (call.id for call in message.tool_calls)
        if message.tool_call_id is not None:
            yield message.tool_call_id
