"""The store on PostgreSQL and MariaDB: the contract, what a host's settings may not change, and many writers at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import databases
import pytest
from databases import Kind, id_of, wait_for_lock
from sqlalchemy import Engine, bindparam, create_engine, event, inspect, make_url, select, text, update
from sqlalchemy.engine import URL

from threadkeep import Budget, Conflict, InvalidSetting, KeyReused, Memory, Message, NotFound, ScriptedBackend, SQLStore, StoreError
from threadkeep.memory.holder import new_holder
from threadkeep.memory.tokens import TokenCounter
from threadkeep.store_contract import AWKWARD, LOOK_ALIKES, texts
from threadkeep.stores import queries, turns
from threadkeep.stores.appending import session_for_append
from threadkeep.stores.faults import whole_again
from threadkeep.stores.rows import prepare
from threadkeep.stores.schema import messages, metadata, sessions
from threadkeep.stores.schema import turns as turns_table
from threadkeep.testing import StoreContract


class TestPostgreSQL(StoreContract):
    @pytest.fixture
    def store_url(self) -> str:
        return databases.clean_database("postgresql")


class TestMariaDB(StoreContract):
    @pytest.fixture
    def store_url(self) -> str:
        return databases.clean_database("mariadb")


def opened(store: str | URL | Engine | SQLStore) -> Memory:
    return Memory(store, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), upkeep=False)


@contextmanager
def lent(url: str, **settings: Any) -> Iterator[Engine]:
    """A host's engine of one connection."""
    engine = create_engine(url, pool_size=1, max_overflow=0, **settings)
    yield engine
    engine.dispose()


def at_once(*works: Callable[[], object]) -> list[object]:
    """Run all at the same moment, each on a thread of its own; what each gave or raised."""
    gave: list[object] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(place: int) -> None:
        barrier.wait()
        try:
            gave[place] = works[place]()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            gave[place] = error

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "it waits for ever"
    return gave


# A host's settings.

LEVELS = (None, "", "SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT")


@pytest.mark.parametrize("level", LEVELS)
def test_a_turn_sees_what_was_committed_while_it_waited(server_url: str, level: str | None, counter: TokenCounter) -> None:
    """With a snapshot of before it waited it would not see the open turn."""
    engine = create_engine(server_url, **({"isolation_level": level} if level else {}))
    store = SQLStore(server_url if level is None else engine)
    with opened(store) as memory:
        memory.session("chat").append("first")
        waiting: list[object] = []
        second = threading.Thread(target=lambda: waiting.extend(at_once(lambda: memory.session("chat").append("third", timeout=0))))
        with store.write() as connection:
            session = session_for_append(connection, "default", "chat", counter.name)
            second.start()
            wait_for_lock(server_url)
            user = prepare(Message.user("second"), counter)
            begun = turns.begin(connection, session, user, None, new_holder(), lambda _: False, lambda _: user)
        second.join()
        assert isinstance(begun, turns.Held)
        assert isinstance(waiting[0], Conflict), waiting
        assert texts(memory.session("chat")) == ["first", "second"]
    store.close()
    engine.dispose()


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_hosts_own_transactions_are_as_they_were(server: Kind, server_url: str, level: str) -> None:
    looks = {
        "postgresql": "SELECT current_setting('transaction_isolation'), current_setting('lock_timeout'), current_setting('search_path')",
        "mariadb": "SELECT @@tx_isolation, @@autocommit, @@sql_mode, @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@unique_checks",
    }

    def look(engine: Engine) -> object:
        with engine.connect() as connection:
            found = connection.execute(text(looks[server])).one()
            raw = connection.connection.dbapi_connection
            return (*found, id_of(connection), str(raw.autocommit) if server == "postgresql" else None)  # type: ignore[union-attr]

    modes = {"connect_args": {"sql_mode": "ANSI_QUOTES"}} if server == "mariadb" else {}
    with lent(server_url, **({"isolation_level": level} if level else {}), **modes) as engine, opened(engine) as memory:
        before = look(engine)
        memory.session("chat").append("one")
        assert look(engine) == before
        with pytest.raises(NotFound):
            memory.session("chat").pin(7)
        assert look(engine) == before
        assert texts(memory.session("chat")) == ["one"]


def test_what_fails_is_undone_on_an_engine_that_commits_each_statement(server_url: str) -> None:
    with lent(server_url, isolation_level="AUTOCOMMIT") as engine, opened(engine) as memory:
        memory.session("chat").append("one")
        with suppress(ZeroDivisionError), memory.store.write() as connection:
            connection.execute(update(sessions).values(title="changed"))
            raise ZeroDivisionError
        with memory.store.read() as connection:
            assert connection.execute(select(sessions.c.title)).scalar_one() is None


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("mode", ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "TRADITIONAL", "ORACLE,EMPTY_STRING_IS_NULL", "PIPES_AS_CONCAT"])
def test_no_sql_mode_changes_what_is_stored(mode: str, own: bool) -> None:
    url = make_url(databases.clean_database("mariadb")).update_query_dict({"sql_mode": mode})
    engine = create_engine(url)
    with opened(url if own else engine) as memory:
        session = memory.session(LOOK_ALIKES[-1] + "'\"", owner="a'b\"c\\d`e ")
        session.append(*AWKWARD, key="'\\'\" ", metadata={"said": list(AWKWARD)})
        session.chat("Hello")
        assert texts(session) == [*AWKWARD, "Hello", "a reply"]
        assert session.entries(limit=1)[0].metadata == {"said": list(AWKWARD)}
        assert "emoji" in {word for found in session.search("emoji") for word in found.entry.message.text.split()}
    engine.dispose()


def not_strict(url: str) -> Engine:
    """A host's engine that lets MariaDB cut what does not fit."""
    engine = create_engine(url)
    if url.startswith("mysql"):
        event.listen(engine, "connect", lambda raw, _: raw.query("SET SESSION sql_mode = ''"))
    return engine


@pytest.mark.parametrize("own", [True, False])
def test_what_does_not_fit_is_refused_and_never_cut(server_url: str, own: bool) -> None:
    engine = not_strict(server_url)
    secret = "long and secret " * 40
    with opened(server_url if own else engine) as memory:
        memory.session("chat").append("one")
        for changed in (
            update(sessions).values(name=secret * 3),
            update(turns_table).values(holder=secret),
            update(messages).values(tokens=10**30),
        ):
            memory.session("chat").chat("two")
            with pytest.raises(StoreError) as caught, memory.store.write() as connection:
                connection.execute(changed)
            assert "secret" not in str(caught.value)
            assert caught.value.__suppress_context__
        assert memory.sessions()[0].name == "chat"
    engine.dispose()


def test_a_database_of_another_encoding_is_refused(server_url: str) -> None:
    if not server_url.startswith("postgresql"):
        pytest.skip("MariaDB's tables have their own")
    url = make_url(server_url)
    name = f"{url.database}_latin"
    with databases.admin(url).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"))
    try:
        store = SQLStore(url.set(database=name))
        with pytest.raises(StoreError, match=r"LATIN1.*UTF8"):
            store.migrate()
        store.close()
    finally:
        databases.drop_database(url, name)


# A schema of PostgreSQL.


@pytest.mark.parametrize("own", [True, False])
def test_two_schemas_of_one_database_know_nothing_of_each_other(own: bool) -> None:
    url = databases.clean_database("postgresql")
    name = f"Own schema, {own}"
    engine = create_engine(url)
    stores = [SQLStore(url if own else engine, schema=schema) for schema in (name, "other")]
    for store in stores:
        assert store.migrate() == store.migrate()
    (first, second), plain = map(opened, stores), opened(url)
    first.session("chat").chat("first", key="k")
    second.session("chat").append("second", key="k")
    assert texts(first.session("chat")) == ["first", "a reply"]
    assert texts(second.session("chat")) == ["second"]
    with opened(make_url(url).update_query_dict({"options": "-csearch_path=other"})) as named_in_the_url:
        assert texts(named_in_the_url.session("chat")) == ["second"]
    assert plain.sessions() == []
    assert first.session("chat").search("first")[0].entry.seq == 1
    assert first.delete_owner("default") == 1
    assert texts(second.session("chat")) == ["second"]
    with engine.begin() as connection:
        found = {schema: set(inspect(connection).get_table_names(schema)) for schema in (name, "other")}
        indexes = {schema: len(inspect(connection).get_indexes("threadkeep_messages", schema)) for schema in (name, "other")}
        for schema in (name, "other"):
            connection.execute(text(f'DROP SCHEMA "{schema}" CASCADE'))
    assert found[name] == found["other"] == {*metadata.tables, "threadkeep_version"}
    assert indexes[name] == indexes["other"] > 0
    for memory in (first, second, plain):
        memory.close()
    for store in stores:
        store.close()
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "mysql+pymysql://root@127.0.0.1/mysql"])
def test_only_postgresql_takes_a_schema(url: str) -> None:
    with pytest.raises(InvalidSetting, match="only PostgreSQL"):
        SQLStore(url, schema="chat")


# Many writers.


def test_sessions_and_owners_that_many_begin_at_once_are_made_once(any_url: str) -> None:
    with opened(any_url) as memory:

        def append(owner: str, number: int) -> None:
            memory.session(f"chat {number % 2}", owner=owner).append(f"message {number}", key="k")

        for owner in ("ada", "bob", "eve"):
            gave = at_once(*(partial(append, owner, number) for number in range(8)))
            for chat in (0, 1):
                (said,) = texts(memory.session(f"chat {chat}", owner=owner))
                others = [gave[number] for number in range(chat, 8, 2) if f"message {number}" != said]
                assert [type(one) for one in others] == [KeyReused] * 3, gave
            assert len(memory.sessions(owner=owner)) == 2
        with memory.store.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM threadkeep_owners")).scalar_one() == 3


def test_many_threads_on_few_sessions_lose_nothing_and_keep_order(any_url: str) -> None:
    with opened(any_url) as memory:

        def work(thread: int) -> None:
            for number in range(8):
                memory.session(f"chat {(thread + number) % 3}", owner="ada").append(f"{thread} {number}")

        assert at_once(*(partial(work, thread) for thread in range(8))) == [None] * 8
        found = [texts(memory.session(f"chat {number}", owner="ada")) for number in range(3)]
        assert sorted(one for said in found for one in said) == sorted(f"{thread} {number}" for thread in range(8) for number in range(8))
        for said in found:
            for thread in range(8):
                mine = [one for one in said if one.startswith(f"{thread} ")]
                assert mine == sorted(mine)
        for chat in range(3):
            entries = memory.session(f"chat {chat}", owner="ada").entries(limit=1000)
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


def test_owners_deleted_while_others_append_leave_no_rows_of_nobody(any_url: str) -> None:
    with opened(any_url) as memory:

        def write(thread: int) -> None:
            for number in range(6):
                memory.session(f"chat {thread} {number}", owner="ada").append("hello")

        def delete() -> None:
            for _ in range(6):
                memory.delete_owner("ada")

        assert at_once(*(partial(write, thread) for thread in range(4)), delete) == [None] * 5
        memory.delete_owner("ada")
        with memory.store.read() as connection:
            assert {table.name: connection.execute(select(table)).all() for table in metadata.sorted_tables} == {
                table.name: [] for table in metadata.sorted_tables
            }


@whole_again
class Crossing:
    """Locks two sessions in the order that it is told."""

    def __init__(self, store: SQLStore, barrier: threading.Barrier) -> None:
        self._store, self._barrier = store, barrier
        self.runs = 0

    def lock(self, first: str, second: str) -> None:
        self.runs += 1
        with self._store.write("crossing") as connection:
            assert queries.find_session(connection, "default", first, lock=True)
            if self.runs <= 2:
                self._barrier.wait(5)
            assert queries.find_session(connection, "default", second, lock=True)
            connection.execute(_TITLE, {"b_name": first, "title": f"{first} then {second}"})


_TITLE = update(sessions).where(sessions.c.name == bindparam("b_name"))


def test_who_waits_in_a_circle_is_run_again(server_url: str) -> None:
    with opened(server_url) as memory:
        for name in ("one", "two"):
            memory.session(name).append("hello")
        crossing = Crossing(memory.store, threading.Barrier(2))
        assert at_once(lambda: crossing.lock("one", "two"), lambda: crossing.lock("two", "one")) == [None, None]
        assert crossing.runs == 3
        assert {listed.title for listed in memory.sessions()} == {"one then two", "two then one"}
