"""A reply of 40 tokens, left after each of its tokens: is exactly what was delivered stored, and how soon is the engine idle?

smollm2-135m. The reply is left in three ways by turns: at the end of the block, by an exception in it, and from another thread. Before the
first token there is one more run: nothing is stored then. What was stored is read through a connection of its own, once the block is over.
After the last run one whole reply shows that the engine goes on.

python benchmarks/cancelling.py [--tokens N] [--threads N]
"""

import argparse
import tempfile
import threading
import time
from contextlib import suppress

from _common import median, verdict

from threadkeep.backends.llama_cpp import LlamaCpp
from threadkeep.memory.budget import Budget
from threadkeep.memory.memory import Memory
from threadkeep.memory.session import Session
from threadkeep.memory.stream import Stream

QUESTION = "Tell me a long story of the lighthouse on the northern cape."


class Enough(Exception):
    """The reader has had enough."""


def read(stream: Stream, tokens: int, way: int) -> str:
    """What was delivered until so many tokens came; left by an exception or from another thread, or only read so far."""
    words: list[str] = []
    for event in stream:
        if event.text:
            words.append(event.text)
        if len(words) == tokens:
            break
    if way == 1:
        raise Enough("".join(words))
    if way == 2:
        thread = threading.Thread(target=stream.leave)
        thread.start()
        thread.join()
        words += [event.text for event in stream]
    return "".join(words)


def left(session: Session, tokens: int, way: int) -> tuple[str, float]:
    """What was delivered, and the time at which the reply was left."""
    delivered = ""
    began = 0.0
    with suppress(Enough), session.stream(QUESTION) as stream:
        try:
            delivered = read(stream, tokens, way)
        except Enough as error:
            delivered = str(error)
            raise
        finally:
            began = time.perf_counter()
    return delivered, began


def idle_after(backend: LlamaCpp, began: float) -> float:
    """Milliseconds until the engine answers nobody."""
    while backend.busy:
        time.sleep(0.001)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--threads", type=int, help="of the engine; 1 where other work takes the cores")
    given = parser.parse_args()
    backend = LlamaCpp("smollm2-135m", window=2048, parallel=2, temperature=0, threads=given.threads)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/chat.db"
        with Memory(url, backend=backend, budget=Budget(2048, reply=given.tokens)) as memory, Memory(url, backend=backend) as reader:
            whole = memory.session("whole").chat(QUESTION).text
            exact, waits = 0, []
            for tokens in range(given.tokens + 1):
                name = f"left after {tokens}"
                delivered, began = left(memory.session(name), tokens, tokens % 3) if tokens else ("", 0.0)
                if not tokens:
                    with memory.session(name).stream(QUESTION) as stream:
                        next(stream)
                        began = time.perf_counter()
                waits.append(idle_after(backend, began))
                log = [(entry.role, entry.message.text, entry.status) for entry in reader.session(name).entries()]
                wanted = [("user", QUESTION, "complete"), ("assistant", delivered, "interrupted")][: 2 if tokens else 1]
                exact += log == wanted and whole.startswith(delivered)
                if log != wanted:
                    print(f"    left after {tokens}: delivered {delivered!r}, stored {log[1:]}")
            again = memory.session("again").chat(QUESTION).text
    print(f"  a reply of {given.tokens} tokens, left before the first and after each; a whole one afterwards is the same: {again == whole}")
    verdict("exactly what was delivered is stored, share of the runs", exact / (given.tokens + 1), 1, least=True)
    verdict(f"engine idle after it was left, the longest of all (median {median(waits):.0f} ms), ms", max(waits), 1000)


if __name__ == "__main__":
    main()
