"""`kill -9` at random moments of a streaming chat: what is lost? No acknowledged message may be, and of a reply at most about a second.

python benchmarks/kill.py [times]
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from threadkeep import Budget, Memory, ScriptedBackend

WORDS = 80
PAUSE = 0.05
"""Seconds before each word: a reply takes about four."""
LONGEST_LOSS = 1.5
"""Seconds of a reply that may be lost: drafts are saved about once a second, on a busy machine a little later."""


def opened(url: str) -> Memory:
    said = " ".join(f"word{number}" for number in range(WORDS))
    return Memory(url, backend=ScriptedBackend(lambda _: said, delay=PAUSE), budget=Budget(4000, reply=500))


def chat(url: str, log: Path, begin: int) -> None:
    """Chat until killed; what was acknowledged or delivered is on disk in `log` at once."""
    with log.open("a") as file, opened(url) as memory:

        def note(**what: object) -> None:
            file.write(json.dumps({"at": time.monotonic(), **what}) + "\n")
            file.flush()
            os.fsync(file.fileno())

        session = memory.session("killed")
        note(ready=True)
        for number in range(begin, begin + 1_000):
            with session.stream(f"question {number}") as stream:
                note(user=f"question {number}")
                for event in stream:
                    note(delivered=event.text)
            note(reply=stream.reply.text)


def read(log: Path) -> list[Mapping[str, object]]:
    """What the child noted; its last line may be cut."""
    notes = []
    for line in log.read_text().splitlines():
        try:
            notes.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return notes


def check(url: str, notes: Sequence[Mapping[str, object]], died: float) -> float | None:
    """Seconds of the reply that were lost; None where the child died between two turns."""
    with opened(url) as memory:
        session = memory.session("killed")
        with session.stream("are you still there?") as stream:  # the dead turn is settled before this message
            list(islice(stream, 2))
        entries = session.entries(limit=10_000)
        messages = [(entry.role, entry.message.text) for entry in entries]
        assert messages[-2] == ("user", "are you still there?")
        assert stream.reply.status == "interrupted"
        at = 0
        for note in notes:
            wanted = ("user", note["user"]) if "user" in note else ("assistant", note["reply"]) if "reply" in note else None
            if wanted is not None:
                assert wanted in messages[at:], f"acknowledged and lost: {wanted}"
                at = messages.index(wanted, at) + 1
        last = max((place for place, note in enumerate(notes) if "user" in note), default=None)
        if last is None or any("reply" in note for note in notes[last:]):
            return None
        pieces = [(float(str(note["at"])), str(note["delivered"])) for note in notes[last:] if "delivered" in note]
        said = "".join(text for _, text in pieces)
        after = entries[[message[1] for message in messages].index(str(notes[last]["user"])) + 1]
        kept = after.message.text if after.role == "assistant" else ""
        if after.role == "assistant" and after.status == "complete":
            return 0.0  # it was finished and stored, and died before it could say so
        assert said.startswith(kept), (said, kept)
        assert after.status == "interrupted" or not kept
        lost, length = [], 0
        for moment, text in pieces:
            length += len(text)
            if length > len(kept):
                lost.append(moment)
        return died - lost[0] if lost else 0.0


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    rng, losses, between, words = random.Random(7), [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'chat.db'}"
        for number in range(times):
            log = Path(folder) / f"log{number}"
            log.touch()
            child = subprocess.Popen([sys.executable, __file__, "--child", url, str(log), str(1000 * number)])
            while not log.stat().st_size:
                time.sleep(0.01)
                assert child.poll() is None, "the child ended by itself"
            time.sleep(rng.uniform(0, 1.3 * WORDS * PAUSE))
            child.send_signal(signal.SIGKILL)
            died = time.monotonic()
            child.wait()
            notes = read(log)
            words += sum("delivered" in note for note in notes)
            loss = check(url, notes, died)
            if loss is None:
                between += 1
            else:
                losses.append(loss)
    print(f"killed {times} times ({between} of them between two turns), {words} pieces delivered: the database opened every time,")
    print("  no acknowledged message was missing, the next turn worked")
    if losses:
        print(f"  of the reply was lost: median {statistics.median(losses):.2f} s, at most {max(losses):.2f} s of {WORDS * PAUSE:.0f} s")
    if max(losses, default=0.0) > LONGEST_LOSS:
        sys.exit(f"  more than {LONGEST_LOSS} s was lost")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        chat(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
