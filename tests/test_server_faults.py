"""What fails on PostgreSQL and MariaDB: each fault is a typed error that says what to do, and the next call works."""

import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import databases
import pytest
from databases import Kind, ask, cut, id_of, wait_for_lock
from sqlalchemy import Engine, create_engine, event, make_url, text, update
from sqlalchemy.engine import URL

from threadkeep import (
    Budget,
    InvalidMessage,
    InvalidSetting,
    Memory,
    Message,
    SchemaTooOld,
    ScriptedBackend,
    SQLStore,
    StoreBusy,
    StoreError,
)
from threadkeep.store_contract import texts
from threadkeep.stores import faults, queries
from threadkeep.stores.faults import whole_again
from threadkeep.stores.schema import sessions

SECRET = "what Ada said in confidence"
PASSWORD = "geheim-und-lang"


def opened(store: str | URL | Engine | SQLStore) -> Memory:
    return Memory(store, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), upkeep=False)


@pytest.fixture(params=["own", "lent"])
def memory(request: pytest.FixtureRequest, server_url: str) -> Iterator[Memory]:
    """With a session, on an engine of its own, and on a host's that does not look whether a connection is alive."""
    engine = create_engine(server_url)
    with opened(server_url if request.param == "own" else engine) as made:
        made.session("chat").append("hello")
        yield made
    engine.dispose()


def shown(error: BaseException) -> str:
    """What a log would have of it."""
    return "".join(traceback.format_exception(error))


def busy(memory: Memory) -> StoreBusy:
    """What an append raises."""
    with pytest.raises(StoreBusy) as caught:
        memory.session("chat").append(SECRET)
    return caught.value


# Where no connection can be made.


def changed(url: str, what: str) -> URL:
    made = make_url(url)
    match what:
        case "port":
            return made.set(port=1, password=PASSWORD)
        case "user":
            return made.set(username="nobody", password=PASSWORD)
        case "host":
            return made.set(host="no-such-host.invalid", password=PASSWORD)
        case _:
            return made.set(database="no_such_database")


@pytest.mark.parametrize(("what", "says"), [("port", "refused"), ("user", "nobody"), ("host", "no-such-host"), ("database", "no_such")])
def test_a_database_that_cannot_be_reached_is_named_and_its_password_is_not(server_url: str, what: str, says: str) -> None:
    with opened(changed(server_url, what)) as memory:
        for use in (lambda: memory.session("chat").append(SECRET), memory.sessions, memory.store.migrate):
            with pytest.raises(StoreError, match=rf"could not be reached while .*; nothing was written: .*{says}") as caught:
                use()
            assert SECRET not in shown(caught.value)
            assert PASSWORD not in shown(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "postgres", "sqlite", "mysql+nodriver"])
@pytest.mark.parametrize("rest", ["://ada:geh@eim@host/chat", ":/ada:geheim@host/chat", "://ada:geheim@host:port/chat"])
def test_a_url_that_is_none_is_refused_without_its_password(scheme: str, rest: str) -> None:
    with pytest.raises((InvalidSetting, StoreError)) as caught:
        SQLStore(scheme + rest).migrate()
    assert "eim" not in shown(caught.value).split("Error: ")[-1].split("InvalidSetting: ")[-1]


def test_too_many_connections_is_busy(server: Kind, server_url: str) -> None:
    admin = make_url(server_url)
    name = f"few_{admin.database}"
    limits = {
        "postgresql": (f"CREATE ROLE {name} LOGIN SUPERUSER", f"ALTER ROLE {name} NOSUPERUSER CONNECTION LIMIT 1"),
        "mariadb": (f"CREATE USER {name}@'127.0.0.1'", f"GRANT ALL ON *.* TO {name}@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1"),
    }[server]
    drop = f"DROP ROLE {name}" if server == "postgresql" else f"DROP USER {name}@'127.0.0.1'"
    for statement in limits:
        ask(admin, statement)
    try:
        store = SQLStore(admin.set(username=name))
        with store.engine.connect(), pytest.raises(StoreBusy, match=r"as many as it allows"):
            store.session("ada", "chat")
        store.close()
    finally:
        ask(admin, drop)


def test_a_database_without_tables_is_told_to_migrate(server: Kind) -> None:
    store = SQLStore(databases.new_database(server))
    with pytest.raises(SchemaTooOld, match="has no tables of threadkeep: run `threadkeep migrate"):
        store.session("ada", "chat")
    store.close()


# What a server refuses.


def test_what_is_read_only_says_so(server: Kind, server_url: str) -> None:
    store = SQLStore(server_url)
    statement = "SET default_transaction_read_only = on" if server == "postgresql" else "SET SESSION TRANSACTION READ ONLY"

    def read_only(raw: object, _: object) -> None:
        cursor = raw.cursor()  # type: ignore[attr-defined]
        cursor.execute(statement)
        raw.commit()  # type: ignore[attr-defined]

    event.listen(store.engine, "connect", read_only)
    with opened(store) as memory, pytest.raises(StoreError, match=r"may only read .*nothing was written"):
        memory.session("chat").append(SECRET)
    store.close()


def test_a_privilege_that_is_missing_is_named(server: Kind, server_url: str) -> None:
    admin = make_url(server_url)
    name = f"reader_{admin.database}"
    grants = {
        "postgresql": (f"CREATE ROLE {name} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}", f"DROP OWNED BY {name}"),
        "mariadb": (f"CREATE USER {name}@'127.0.0.1'", f"GRANT SELECT ON {admin.database}.* TO {name}@'127.0.0.1'", "DO 1"),
    }[server]
    drop = f"DROP ROLE {name}" if server == "postgresql" else f"DROP USER {name}@'127.0.0.1'"
    for statement in grants[:2]:
        ask(admin, statement)
    try:
        with opened(admin.set(username=name)) as memory:
            assert memory.sessions() == []
            with pytest.raises(StoreError, match=r"lacks a privilege .*nothing was written"):
                memory.session("chat").append(SECRET)
    finally:
        ask(admin, grants[2])
        ask(admin, drop)


def test_a_lock_that_another_holds_is_not_waited_for_without_end(server: Kind, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAIT_SECONDS", 1)  # for a second try
    statement = "SET lock_timeout = '300ms'" if server == "postgresql" else "SET SESSION innodb_lock_wait_timeout = 1"
    store = SQLStore(server_url)

    def impatient(raw: object, _: object) -> None:
        cursor = raw.cursor()  # type: ignore[attr-defined]
        cursor.execute(statement)
        raw.commit()  # type: ignore[attr-defined]

    event.listen(store.engine, "connect", impatient)
    with opened(store) as memory:
        memory.session("chat").append("hello")
        with store.write() as connection:
            assert queries.find_session(connection, "default", "chat", lock=True)
            gave: list[StoreBusy] = []
            other = threading.Thread(target=lambda: gave.append(busy(memory)))
            other.start()
            other.join()
        assert "waited" in str(gave[0])
        assert SECRET not in shown(gave[0])
        memory.session("chat").append("more")
        assert texts(memory.session("chat")) == ["hello", "more"]
    store.close()


def test_a_statement_that_is_stopped_is_busy(server: Kind, memory: Memory, server_url: str) -> None:
    with memory.store.write() as holder:
        assert queries.find_session(holder, "default", "chat", lock=True)
        gave: list[StoreBusy] = []
        other = threading.Thread(target=lambda: gave.append(busy(memory)))
        other.start()
        wait_for_lock(server_url)
        found = {
            "postgresql": "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
            "mariadb": "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
        }[server]
        number = ask(server_url, found)
        ask(server_url, f"SELECT pg_cancel_backend({number})" if server == "postgresql" else f"KILL QUERY {number}")
        other.join()
    assert "was stopped" in str(gave[0])
    assert texts(memory.session("chat")) == ["hello"]


def test_what_is_larger_than_the_server_takes_names_the_setting(memory: Memory) -> None:
    if memory.store.engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL takes what threadkeep takes")
    with memory.store.read() as connection:
        limit = int(connection.execute(text("SELECT @@max_allowed_packet")).scalar_one())
    change_title(memory, "short")
    for large in ("some words " * (limit // 11), '"' * (limit // 2)):
        with pytest.raises(StoreError, match=r"nothing was written. .*max_allowed_packet.* to \d+M or more") as caught:
            change_title(memory, large)
        assert len(str(caught.value)) < 400
        assert memory.sessions()[0].title == "short"
    change_title(memory, "some words " * (limit // 22))


def change_title(memory: Memory, title: str) -> None:
    with memory.store.write("changing titles") as connection:
        connection.execute(update(sessions), {"title": "short"})
        connection.execute(update(sessions), {"title": title})


def test_a_message_larger_than_any_database_keeps_is_refused(memory: Memory) -> None:
    with pytest.raises(InvalidMessage, match="bytes as JSON"):
        memory.session("chat").append("x" * (64 * 2**20))


# A lost connection.


def test_a_connection_that_died_in_the_pool_is_replaced(memory: Memory, server_url: str) -> None:
    for _ in range(2):
        for use in (lambda: memory.session("chat").append("more"), memory.sessions, lambda: memory.session("chat").context("Hello")):
            with memory.store.engine.connect() as connection:
                number = id_of(connection)
            cut(server_url, number)
            use()
    assert texts(memory.session("chat")) == ["hello", "more", "more"]


@whole_again
class Losing:
    """Appends in a transaction whose connection is cut as often as it is told."""

    def __init__(self, memory: Memory, url: str, times: int) -> None:
        self._store, self._url, self._times = memory.store, url, times
        self.runs = 0

    def change(self) -> None:
        with self._store.write("changing a title") as connection:
            session = queries.find_session(connection, "default", "chat", lock=True)
            assert session is not None
            queries.set_tokenizer(connection, session, f"changed {self.runs}")
            self.runs += 1
            if self.runs <= self._times:
                cut(self._url, id_of(connection))
            queries.set_tokenizer(connection, session, f"changed again {self.runs}")


def test_a_connection_lost_before_anything_was_kept_is_run_again_once(memory: Memory, server_url: str) -> None:
    once = Losing(memory, server_url, 1)
    once.change()
    assert once.runs == 2
    found = memory.store.session("default", "chat")
    assert found is not None
    assert found.tokenizer == "changed again 2"
    twice = Losing(memory, server_url, 9)
    with pytest.raises(StoreError, match=r"lost its connection while changing a title; nothing was written") as caught:
        twice.change()
    assert twice.runs == 2
    assert "changed" not in shown(caught.value).split("StoreError: ")[-1]
    assert memory.store.session("default", "chat") == found


def test_a_connection_lost_while_committing_says_that_nobody_knows(memory: Memory, server_url: str) -> None:
    lost: list[int] = []

    @event.listens_for(Engine, "commit")
    def lose(connection: object) -> None:
        if connection.engine.pool is memory.store.engine.pool and not lost:  # type: ignore[attr-defined]
            lost.append(1)
            with connection.connection.cursor() as cursor:  # type: ignore[attr-defined]
                postgresql = connection.dialect.name == "postgresql"  # type: ignore[attr-defined]
                cursor.execute("SELECT pg_backend_pid()" if postgresql else "SELECT connection_id()")
                number = cursor.fetchone()[0]
            cut(server_url, number)

    try:
        with pytest.raises(StoreError, match=r"may be written, or not .*same key writes it once"):
            memory.session("chat").append("more", key="k")
    finally:
        event.remove(Engine, "commit", lose)
    memory.session("chat").append("more", key="k")
    assert texts(memory.session("chat")) == ["hello", "more"]


# SQLite.


def test_faults_of_a_file_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but a long text of at least a hundred bytes. " * 10)
    for name, says in (("text.db", "no SQLite database"), ("folder.db", "could not open the file")):
        if name == "folder.db":
            (tmp_path / name).mkdir()
        with opened(f"sqlite:///{tmp_path / name}") as memory, pytest.raises(StoreError, match=says):
            memory.session("chat").append(SECRET)


# A killed writer.


def write_until_killed(url: str, acknowledged: Connection) -> None:
    with opened(url) as memory:
        for number in range(1_000_000):
            memory.session("chat", owner="ada").append(f"message {number}", Message.assistant(f"answer {number}"))
            acknowledged.send(number)


@pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_killed_writer_was_told_is_there_and_the_next_goes_on(any_url: str) -> None:
    forking = get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=write_until_killed, args=(any_url, theirs))
    process.start()
    while ours.recv() < 12:
        pass
    process.kill()
    process.join()
    told = 12
    while ours.poll():
        told = ours.recv()
    with opened(any_url) as memory:
        session = memory.session("chat", owner="ada")
        said = texts(session)
        assert said == [text for number in range(len(said) // 2) for text in (f"message {number}", f"answer {number}")]
        assert len(said) // 2 in (told + 1, told + 2)  # the last may have been stored, and not told
        assert session.append("and on")[0].seq == len(said) + 1
    ours.close()
    theirs.close()
