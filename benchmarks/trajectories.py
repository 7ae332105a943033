"""Are the promises kept on recorded conversations? Every prefix that a model would be asked to answer, at several budgets.

python benchmarks/trajectories.py [FILE_OR_FOLDER] [--limit N]

FILE is JSON, a list of `{"traj": [messages in OpenAI's format]}`, as tau-bench writes them; a FOLDER holds such files. Without the
argument the environment names it: THREADKEEP_DATA. Each conversation is appended message by message, and at every user's message and
tool's result the context is assembled, checked by rules that know nothing of the assembler, and compared with the smallest valid context.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from threadkeep.backends.tiktoken_counter import TiktokenCounter
from threadkeep.memory.budget import Budget
from threadkeep.memory.errors import CannotFit
from threadkeep.memory.memory import Memory
from threadkeep.memory.message import JSON, Message
from threadkeep.memory.session import Session
from threadkeep.memory.tokens import Count
from threadkeep.promises import Asked, Log, smallest, violations, whole

BUDGETS = {"1,400": 1_400, "2,000": 2_000, "3,000": 3_000, "4,000": 4_000, "the whole": 1_000_000_000}
PROMISES = ("P1", "P2", "P3", "P4", "P5")
SHOWN = 5
"""How many findings are told in full."""


class Remembering:
    """A counter that counts each message once: the check counts the same ones again and again."""

    additive = True

    def __init__(self, counter: TiktokenCounter) -> None:
        self._counter = counter
        self.name = counter.name
        self._counts: dict[str, Count] = {}

    def count(self, message: Message) -> Count:
        key = json.dumps(message.to_dict())
        if key not in self._counts:
            self._counts[key] = self._counter.count(message)
        return self._counts[key]

    def count_request(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[JSON] | None = None,
        response_format: JSON | None = None,
        counts: Sequence[int] | None = None,
    ) -> Count:
        counts = [self.count(message).tokens for message in messages]
        return self._counter.count_request(messages, tools=tools, response_format=response_format, counts=counts)


@dataclass
class Tally:
    """What was seen at one budget."""

    contexts: int = 0
    refused: int = 0
    fitted_whole: int = 0
    filled: float = 0
    """Sum of the contexts' shares of their ceiling, of those that leave something out."""
    broken: Counter[str] = field(default_factory=Counter)
    disagreed: int = 0


def check(session: Session, log: Log, asked: Asked, window: int, tally: Tally) -> list[str]:
    """Assemble one context and look at it."""
    tally.contexts += 1
    least = smallest(log, asked)
    try:
        context = session.context(budget=Budget(window))
    except CannotFit as refusal:
        tally.refused += 1
        found = [] if least > window else [f"oracle: {least} tokens would do within {window}, and it is refused"]
        if refusal.needed != least:
            found.append(f"oracle: the smallest context takes {least} tokens, the refusal says {refusal.needed}")
        tally.disagreed += bool(found)
        return found
    found = violations(context, log, asked)
    tally.broken.update({finding.split(":")[0] for finding in found})
    if least > window:
        tally.disagreed += 1
        found.append(f"oracle: no context of less than {least} tokens is valid, and one is given for {window}")
    if whole(log, asked) <= window:
        tally.fitted_whole += 1
    else:
        tally.filled += context.tokens / window
    return found


def run(conversations: Sequence[Sequence[Message]]) -> tuple[dict[str, Tally], list[str]]:
    tallies = {name: Tally() for name in BUDGETS}
    findings: list[str] = []
    counter = TiktokenCounter("gpt-4.1-nano")
    asked = Asked(Remembering(counter))
    with tempfile.TemporaryDirectory() as folder, Memory(f"sqlite:///{folder}/chat.db", counter=counter, budget=Budget(4_000)) as memory:
        for number, messages in enumerate(conversations):
            session = memory.session(f"conversation {number}")
            for at, message in enumerate(messages, start=1):
                session.append(message)
                if message.role not in ("user", "tool"):
                    continue
                log = Log(tuple(messages[:at]))
                for name, window in BUDGETS.items():
                    found = check(session, log, asked, window, tallies[name])
                    findings += [f"conversation {number}, {at} messages, budget {name}: {one}" for one in found]
    return tallies, findings


def read(given: Path) -> list[list[Message]]:
    """The conversations of a file, or of all JSON files of a folder."""
    files = sorted(given.rglob("*.json")) if given.is_dir() else [given]
    return [[Message.from_dict(message) for message in record["traj"]] for file in files for record in json.loads(file.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=os.environ.get("THREADKEEP_DATA"), metavar="FILE_OR_FOLDER")
    parser.add_argument("--limit", type=int, default=None, help="so many conversations only")
    given = parser.parse_args()
    if not given.data:
        print("No conversations: name a file or folder, or set THREADKEEP_DATA (see --help).", file=sys.stderr)
        return 2
    try:
        conversations = read(Path(given.data))[: given.limit]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{given.data} holds no conversations of the form [{{'traj': [messages]}}]: {error!r}", file=sys.stderr)
        return 2
    if not conversations:
        print(f"{given.data} holds no JSON file with conversations.", file=sys.stderr)
        return 2
    began = time.perf_counter()
    tallies, findings = run(conversations)
    print(f"{len(conversations)} conversations, {sum(map(len, conversations))} messages, {time.perf_counter() - began:.0f} s\n")
    print(
        f"{'budget':>10} {'contexts':>9} {'CannotFit':>16} {'whole log':>10} {'mean fill':>10}  "
        + "".join(f"{name:>5}" for name in PROMISES),
        "oracle",
    )
    for name, tally in tallies.items():
        cut = tally.contexts - tally.refused - tally.fitted_whole
        fill = f"{tally.filled / cut:.1%}" if cut else "-"
        refused = f"{tally.refused} ({tally.refused / tally.contexts:.1%})"
        broken = "".join(f"{tally.broken[promise]:>5}" for promise in PROMISES)
        print(f"{name:>10} {tally.contexts:>9} {refused:>16} {tally.fitted_whole:>10} {fill:>10}  {broken} {tally.disagreed:>6}")
    print("\nThe promises' columns count contexts that break them; the last one disagreements with the smallest valid context.")
    print("\n".join(findings[:SHOWN] + ([f"… and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else [])))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
