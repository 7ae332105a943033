"""The store on SQLite: the contract on a file and in memory, and what only a file can do: be missing, broken, shared, forked."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from threadkeep import (
    Budget,
    InvalidMessage,
    InvalidSetting,
    Memory,
    Message,
    MissingExtra,
    ScriptedBackend,
    SlidingWindow,
    SQLStore,
    StoreBusy,
    StoreError,
    TiktokenCounter,
)
from threadkeep.memory.analysis import terms
from threadkeep.memory.tokens import Count
from threadkeep.store_contract import texts
from threadkeep.testing import StoreContract


class TestSQLiteFile(StoreContract):
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'chat.db'}"


class TestSQLiteInMemory(StoreContract):
    @pytest.fixture
    def store_url(self) -> str:
        return "sqlite:///:memory:"


def opened(store: object) -> Memory:
    return Memory(store, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "chat.db", "sqlite:/", "nonsense://x", "mongodb://localhost/x", "oracle://localhost/x", None, 7])
def test_what_is_no_database_url_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidSetting):
        opened(wrong)


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingExtra, match="pip install"):
        opened("sqlite+pysqlcipher:///x.db")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="nowhere"):
        opened(f"sqlite:///{tmp_path / 'nowhere' / 'chat.db'}")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError), opened(f"sqlite:///{tmp_path}") as memory:
        memory.sessions()


@pytest.mark.parametrize("content", [b"This is a diary, not a database. " * 200, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chat.db"
    path.write_bytes(content)
    with pytest.raises(StoreError), opened(f"sqlite:///{path}") as memory:
        memory.session("chat").append("hello")
    assert path.read_bytes() == content


def test_a_file_that_breaks_later_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with opened(f"sqlite:///{path}") as memory:
        memory.session("chat").append(*("hello " * 100 for _ in range(200)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4])
    with pytest.raises(StoreError), opened(f"sqlite:///{path}") as memory:
        texts(memory.session("chat"))


def test_a_file_opened_to_be_read_only_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with opened(f"sqlite:///{path}") as memory:
        memory.session("chat").append("hello")
    with opened(f"sqlite:///file:{path}?mode=ro&uri=true") as memory:
        assert texts(memory.session("chat")) == ["hello"]
        with pytest.raises(StoreError, match="nothing was written"):
            memory.session("chat").append("more")


def test_an_error_names_no_message(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'chat.db'}") as memory:
        memory.session("chat").append("hello")
        with memory.store.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE threadkeep_terms")
        with pytest.raises(StoreError) as caught:
            memory.session("chat").append("a secret word")
        assert "secret" not in f"{caught.value} {caught.value.__cause__!r}"


def test_a_locked_database_is_busy_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.stores.engine.BUSY_MS", 50)
    path = tmp_path / "chat.db"
    with opened(f"sqlite:///{path}") as memory:
        memory.session("chat").append("hello")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            memory.session("chat").append("more")
        assert texts(memory.session("chat")) == ["hello"]
        other.execute("ROLLBACK")
        other.close()
        memory.session("chat").append("more")
        assert texts(memory.session("chat")) == ["hello", "more"]


def test_a_full_disk_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'chat.db'}") as memory:
        memory.session("chat").append("hello")
        with memory.store.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"nothing was written .*full"):
            memory.session("chat").append("small", "large" * 20_000)
        assert texts(memory.session("chat")) == ["hello"]
        assert memory.sessions()[0].entries == 1


def test_sqlite_writes_ahead_syncs_fully_and_forgets_what_is_deleted(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'chat.db'}") as memory, memory.store.engine.connect() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "secure_delete")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


def test_an_engine_handed_in_is_used_and_never_disposed_of(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    pool = engine.pool
    with opened(engine) as memory:
        memory.session("chat").append("one", "two")
        assert memory.session("chat").chat("three").text == "a reply"
    assert engine.pool is pool
    with engine.begin() as connection:  # the host's own transactions are as they were
        connection.exec_driver_sql("INSERT INTO orders VALUES (1)")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM orders").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM threadkeep_messages").scalar() == 4
    engine.dispose()


def test_a_hosts_engine_serves_many_threads(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}", poolclass=NullPool)
    memory = opened(engine)

    def append(thread: int) -> None:
        for number in range(20):
            memory.session("chat").append(f"{thread} {number}")

    threads = [threading.Thread(target=append, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(texts(memory.session("chat"))) == sorted(f"{thread} {number}" for thread in range(4) for number in range(20))


def test_several_memories_may_share_a_store(tmp_path: Path) -> None:
    store = SQLStore(make_url(f"sqlite:///{tmp_path / 'chat.db'}"))
    opened(store).session("chat").append("one")
    opened(store).session("chat").append("two")
    assert texts(opened(store).session("chat")) == ["one", "two"]
    store.close()


def test_a_session_counted_by_two_tokenizers_still_fits(url: str, counter: TiktokenCounter) -> None:
    class Letters(TiktokenCounter):
        name = "letters"

        def count(self, message: Message) -> Count:
            return Count(len(message.text), exact=True)

    for used in (counter, Letters("o200k_base"), counter):
        with Memory(url, counter=used, budget=Budget(300, reply=50)) as memory:
            memory.session("chat").append(*("what was said " * 5 for _ in range(30)))
    with Memory(url, counter=counter, budget=Budget(300, reply=50), strategy=SlidingWindow()) as memory:
        context = memory.session("chat").context("And now?")
    assert counter.count_request(context.typed_messages()).tokens == context.tokens <= 250
    assert len(context.messages) > 3


def test_a_message_larger_than_every_database_takes_is_refused(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.stores.rows.BODY_LIMIT", 1000)
    with pytest.raises(InvalidMessage, match="1000"):
        memory.session("chat").append("small", "x" * 1000)
    assert memory.sessions() == []


def test_terms_are_words_folded_and_stemmed_and_pairs_where_there_are_no_blanks() -> None:
    assert terms("Running RUNS, the Straße; ﬁne") == {"run": 2, "strass": 1, "fine": 1}
    assert terms("東京都 に 1234") == {"東京": 1, "京都": 1, "に": 1, "1234": 1}
    assert max(map(len, terms("x" * 500))) == 64
    assert terms("\0 \ud800 🙂 …") == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "window"},
        {"budget": 4000},
        {"counter": len},
        {"counter": TiktokenCounter("o200k_base")},
        {"instructions": ["You help."]},
    ],
)
def test_a_memory_says_which_argument_is_wrong(url: str, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match="|".join(wrong)):
        Memory(url, **wrong)  # type: ignore[arg-type]


def test_it_can_be_closed_twice_and_opens_again(tmp_path: Path) -> None:
    memory = opened(f"sqlite:///{tmp_path / 'chat.db'}")
    memory.session("chat").append("one")
    memory.close()
    memory.close()
    assert texts(memory.session("chat")) == ["one"]
    memory.close()


FORK = """
import os, sys
from threadkeep import Budget, Memory, ScriptedBackend

memory = Memory(sys.argv[1], backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500))
memory.session("chat").chat("before")
with memory.session("held").turn("Hello") as turn:  # a turn is held by the process that began it
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    turn.finish("a reply")
child = os.fork()
if child == 0:
    for number in range(20):
        memory.session("of the child").chat(f"child {number}")
        memory.session("chat").append(f"child {number}")
    memory.close()
    sys.exit(0)
for number in range(20):
    memory.session("chat").append(f"parent {number}")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
memory.session("chat").append("after")
memory.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_forked_child_uses_the_same_memory(url: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, url], check=True, timeout=60)
    with opened(url) as memory:
        log = texts(memory.session("chat"))
        assert log[:2] == ["before", "a reply"]
        assert [text for text in log if text.startswith("parent")] == [f"parent {number}" for number in range(20)]
        assert [text for text in log if text.startswith("child")] == [f"child {number}" for number in range(20)]
        assert log[-1] == "after"
        assert texts(memory.session("held")) == ["Hello", "a reply"]
        assert len(texts(memory.session("of the child"))) == 40
        with memory.store.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
