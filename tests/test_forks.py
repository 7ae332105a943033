"""fork() in the middle of traffic: a child gets its turn, and nothing is lost."""

import os
import sys
import threading

import pytest

from threadkeep import Budget, Memory, TiktokenCounter

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_a_child_forked_while_threads_write_can_write(url: str) -> None:
    memory = Memory(url, counter=TiktokenCounter("o200k_base"), budget=Budget(4_000))
    memory.session("here").append("begun")
    over = threading.Event()
    acknowledged = [0, 0, 0]

    def write(number: int) -> None:
        while not over.is_set():
            memory.session(f"thread {number}").append(f"message {acknowledged[number]}")
            acknowledged[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    endings = []
    try:
        for number in range(5):
            child = os.fork()
            if child == 0:
                try:
                    memory.session("child").append(f"from child {number}")
                finally:
                    os._exit(int(sys.exc_info()[0] is not None))
            endings.append(os.waitpid(child, 0)[1])
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert endings == [0] * 5
    assert [entry.message.text for entry in memory.session("child").entries()] == [f"from child {number}" for number in range(5)]
    for number, count in enumerate(acknowledged):
        entries = memory.session(f"thread {number}").entries(limit=100_000) if count else []
        assert [entry.message.text for entry in entries] == [f"message {at}" for at in range(count)]
    memory.close()
