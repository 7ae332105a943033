"""The tables: made once whoever comes first, the same as the code says, an unknown version refused."""

import json
import sys
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import databases
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.engine import URL

from threadkeep import Budget, Memory, SchemaTooNew, SchemaTooOld, SQLStore, TiktokenCounter
from threadkeep.stores.engine import begun
from threadkeep.stores.ledger import NewCall
from threadkeep.stores.schema import PREFIX, metadata, tags
from threadkeep.stores.versions import VERSION_TABLE, VERSIONS, check_schema


@pytest.fixture(params=("sqlite", *databases.KINDS))
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A database without tables: a SQLite file that is not there yet, and one of each server."""
    return make_url(f"sqlite:///{tmp_path / 'chat.db'}") if request.param == "sqlite" else databases.new_database(request.param)


def differences(connection: Connection) -> list[object]:
    """Between the tables and the code."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
    return list(compare_metadata(context, metadata))


def test_migrated_tables_are_those_of_the_code(empty: URL) -> None:
    store = SQLStore(empty)
    assert store.migrate() == store.migrate() == VERSIONS[-1]
    with store.read() as connection:
        assert differences(connection) == []
        names = set(inspect(connection).get_table_names())
    assert names == {table.name for table in metadata.sorted_tables} | {VERSION_TABLE}
    assert all(name.startswith(PREFIX) for name in names)
    store.close()


def test_tables_without_rowids_are_made_so(url: str) -> None:
    store = SQLStore(url)
    store.migrate()
    with store.read() as connection:
        found = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%WITHOUT ROWID%'")
        without = set(found.scalars())
    assert without == {table.name for table in metadata.sorted_tables if table.dialect_options["sqlite"]["with_rowid"] is False}
    store.close()


def test_migrating_again_changes_nothing(url: str) -> None:
    store = SQLStore(url)
    store.migrate()
    with store.read() as connection:
        before = connection.exec_driver_sql("SELECT * FROM sqlite_master").all()
    assert SQLStore(url).migrate() == store.migrate() == VERSIONS[-1]
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT * FROM sqlite_master").all() == before
        assert connection.exec_driver_sql("PRAGMA user_version").scalar() == 0  # the host's, not ours
    store.close()


def test_tables_of_the_host_stay_as_they_are(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('of the host')")
    SQLStore(engine).migrate()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM alembic_version").all() == [("of the host",)]
    engine.dispose()


def test_a_newer_database_is_refused_and_not_touched(any_url: str) -> None:
    before = SQLStore(any_url)
    before.migrate()
    with before.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    try:
        store = SQLStore(any_url)
        for use in (store.migrate, lambda: store.session("default", "chat")):
            with pytest.raises(SchemaTooNew, match=r"9999.*upgrade threadkeep"):
                use()
        store.close()
        with before.read() as connection:
            assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == "9999"
    finally:
        with before.write() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{VERSIONS[-1]}'"))
        before.close()


def test_a_server_is_told_to_migrate(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with engine.connect() as connection, pytest.raises(SchemaTooOld, match="threadkeep migrate"):
        check_schema(connection)
    SQLStore(engine).migrate()
    with engine.connect() as connection:
        assert check_schema(connection)
    engine.dispose()


def begin(url: URL, barrier: Barrier) -> None:
    """In a process of its own."""
    with closing(SQLStore(url)) as store:
        barrier.wait(30)
        assert store.migrate() == VERSIONS[-1]
        assert store.sessions("ada", after=None, limit=1) == []


@pytest.mark.skipif(sys.platform != "linux", reason="fork() is for Linux")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # no thread holds a lock here
def test_processes_that_begin_at_once_make_the_tables_once(empty: URL) -> None:
    forking = get_context("fork")  # children that have all imported already begin at the same moment
    barrier = forking.Barrier(4)
    started = [forking.Process(target=begin, args=(empty, barrier)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    with closing(SQLStore(empty)) as store, store.read() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).all() == [(VERSIONS[-1],)]
        assert differences(connection) == []


def migrated_to(store: SQLStore, version: str) -> None:
    """The tables as an older release made them."""
    config = Config()
    config.set_main_option("script_location", "threadkeep.stores:migrations")
    with begun(store._writing) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


NAMES: dict[str, Any] = {"owner_id": 1, "branch_id": 2, "id": 3, "session_id": 3, "active_branch": 2, "sha256": "a" * 64, "level": 0}


def fill(connection: Connection, table: str, *rows: dict[str, Any]) -> None:
    """Insert rows into a table as an older release had it; what it asks for and is not said is 1 or empty."""
    found = Table(table, MetaData(), autoload_with=connection)
    needed = {
        column.name: 1 if column.type.python_type is int else b"" for column in found.c if not column.nullable and not column.server_default
    }
    said = dict.fromkeys(name for row in rows for name in row)
    made = [{name: value for name, value in (needed | NAMES | said | row).items() if name in found.c} for row in rows]
    connection.execute(insert(found), [{name: _as_bytes(found, name, value) for name, value in row.items()} for row in made])


def _as_bytes(table: Table, name: str, value: object) -> object:
    """Names are bytes on MariaDB; elsewhere everything that is text is text."""
    binary = table.c[name].type.python_type is bytes
    return value.encode() if binary and isinstance(value, str) else value.decode() if not binary and isinstance(value, bytes) else value


BODY = json.dumps({"role": "user", "content": "said long ago"})


@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_older_version_holds_is_there_afterwards(empty: URL, version: str) -> None:
    store = SQLStore(empty)
    migrated_to(store, version)
    with begun(store._writing) as connection:
        fill(connection, "threadkeep_owners", {"id": 1, "name": "ada"})
        fill(connection, "threadkeep_sessions", {"name": "chat", "tokenizer": "o200k_base", "clip": 1000})
        head = {"head_seq": 1200, "head_tokens": 1200, "head_shown": 1200, "head_group": 1200, "head_turn": 1200}
        fill(connection, "threadkeep_branches", {"id": 2, "name": "main", "lineage": "[]", "open_calls": "[]", "leading": 0, **head})
        marks = {1: {"tags": ["fact", "home"], "importance": 0.9}, 2: {"tags": "fact", "importance": "high"}, 1199: {"tags": ["fact"]}}
        fill(
            connection,
            "threadkeep_messages",
            *(
                {
                    "seq": seq,
                    "role": "user",
                    "body": BODY,
                    "status": "complete",
                    "cum_tokens": seq,
                    "cum_shown": seq,
                    "group_seq": seq,
                    "turn_seq": seq,
                }
                | ({"metadata": json.dumps(marks[seq])} if seq in marks else {})
                for seq in range(1, 1201)
            ),
        )
        fill(connection, "threadkeep_vectors", *({"seq": seq, "model": "hashed", "vector": bytes([seq % 256])} for seq in range(1, 300)))
        fill(connection, "threadkeep_pins", {"seq": 5, "since_seq": 7})

    with Memory(store, counter=TiktokenCounter("o200k_base"), budget=Budget(4000), upkeep=False) as memory:
        if empty.get_backend_name() != "sqlite" and version != VERSIONS[-1]:
            with pytest.raises(SchemaTooOld, match=rf"is of version {version}.* run `threadkeep migrate"):
                memory.sessions(owner="ada")
        assert store.migrate() == VERSIONS[-1]
        session = memory.session("chat", owner="ada")
        entries = session.entries(limit=5000)
        assert [entry.seq for entry in entries] == list(range(1, 1201))
        assert {entry.message.text for entry in entries} == {"said long ago"}
        assert entries[0].metadata == marks[1]
        assert session.append("and more")[0].seq == 1201
        assert memory.usage(owner="ada") == []
    with store.read() as connection:
        assert differences(connection) == []
        vectors = connection.execute(text("SELECT seq, vector, made_at_seq FROM threadkeep_vectors ORDER BY seq")).all()
        assert vectors == [(seq, bytes([seq % 256]), 0) for seq in range(1, 300)]
        if version == VERSIONS[0]:  # later ones keep them when they are appended
            found = select(tags.c.seq, tags.c.tag).order_by(tags.c.seq, tags.c.tag)
            assert connection.execute(found).all() == [(1, "fact"), (1, "home"), (1199, "fact")]
            assert connection.execute(text("SELECT seq, importance FROM threadkeep_importances")).all() == [(1, 0.9)]
    store.close()


def test_a_migration_that_is_cut_off_goes_on_where_it_stopped(empty: URL) -> None:
    """Each run is cut after one more change. On SQLite and PostgreSQL, where all is one transaction, nothing of it stays."""
    store = SQLStore(empty)
    migrated_to(store, VERSIONS[0])
    with begun(store._writing) as connection:
        fill(connection, "threadkeep_messages", {"seq": 7, "metadata": json.dumps({"tags": ["fact"]}), "body": BODY, "status": "complete"})
    seen: set[str] = set()
    most = 60 if empty.get_backend_name() == "mysql" else 6

    @event.listens_for(store.engine, "after_cursor_execute")
    def cut(_: Connection, __: object, statement: str, *___: object) -> None:
        changes = ("CREATE", "ALTER", "DROP", "UPDATE", "INSERT INTO THREADKEEP_TAGS")
        if statement.lstrip().upper().startswith(changes) and statement not in seen and len(seen) < most:
            seen.add(statement)
            raise ConnectionAbortedError

    for runs in range(60):  # noqa: B007
        try:
            assert store.migrate() == VERSIONS[-1]
        except ConnectionAbortedError:
            continue
        break
    assert 5 < runs < 60
    with store.read() as connection:
        assert differences(connection) == []
        assert connection.execute(select(tags.c.seq, tags.c.tag)).all() == [(7, "fact")]
    store.close()


def test_text_is_compared_as_it_is_whatever_the_first_release_left() -> None:
    url = databases.new_database("mariadb")
    store = SQLStore(url)
    migrated_to(store, VERSIONS[0])
    with begun(store._writing) as connection:
        connection.execute(text("ALTER TABLE threadkeep_calls CONVERT TO CHARACTER SET latin1"))
        connection.execute(text("ALTER TABLE threadkeep_turns MODIFY state VARCHAR(16) CHARACTER SET latin1 NOT NULL"))
    store.migrate()
    with Memory(store, counter=TiktokenCounter("o200k_base"), budget=Budget(4000), upkeep=False) as memory:
        memory.session("chat").append("hello")
        session = store.session("default", "chat")
        assert session is not None
        for model in ("gpt", "GPT", "gpt", "\u6a21\u578b \U0001f642", "gpt\u0301"):
            store.add_call(session, NewCall("reply", model, 1))
        assert {used.model: used.calls for used in memory.usage()} == {"gpt": 2, "GPT": 1, "\u6a21\u578b \U0001f642": 1, "gpt\u0301": 1}
    with store.read() as connection:
        assert differences(connection) == []
        asked = "SELECT table_name, column_name, collation_name, is_nullable, column_default FROM information_schema.columns"
        found = connection.execute(text(f"{asked} WHERE table_schema = database() AND data_type = 'varchar'")).all()
    kinds = {(table, column): kind for table, column, *kind in found if table != VERSION_TABLE}
    assert {kind[0] for kind in kinds.values()} == {"utf8mb4_bin"}
    assert kinds["threadkeep_turns", "state"] == ["utf8mb4_bin", "NO", None]
    assert kinds["threadkeep_calls", "outcome"] == ["utf8mb4_bin", "NO", "'complete'"]
    store.close()


def test_metadata_of_version_0001_can_be_asked_for_afterwards(url: str, memory: Memory) -> None:
    given = [
        {"tags": ["fact", "home", "fact"], "importance": 0.9},
        {"tags": "fact", "importance": "high"},
        {"tags": ["fact", 3, "", "x" * 65, "half \ud800", "a\0b"], "importance": float(7)},
        {"tags": {"fact": 1}, "importance": True, "else": 10**400},
        {"importance": 10**400},
        None,
    ] * 400  # more than the migration reads at once
    migrated_to(memory.store, VERSIONS[0])
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO threadkeep_messages (owner_id, branch_id, seq, role, body, tokens, shown_tokens, exact, cum_tokens, cum_shown, "
            "group_seq, turn_seq, status, metadata, created_us) VALUES (1, 2, ?, 'user', '{}', 1, 1, 1, 1, 1, 1, 1, 'complete', ?, 1)",
            [(seq, None if metadata is None else json.dumps(metadata)) for seq, metadata in enumerate(given, 1)],
        )
    engine.dispose()

    assert memory.store.migrate() == VERSIONS[-1]

    with memory.store.engine.connect() as connection:
        tags = connection.exec_driver_sql("SELECT seq, tag FROM threadkeep_tags WHERE owner_id = 1 AND branch_id = 2 ORDER BY seq, tag")
        weighed = connection.exec_driver_sql("SELECT seq, importance FROM threadkeep_importances ORDER BY seq")
        expected = [mark for at in range(1, 2400, 6) for mark in ((at, "fact"), (at, "home"), (at + 2, "fact"))]
        assert tags.all() == expected
        assert weighed.all() == [mark for at in range(1, 2400, 6) for mark in ((at, 0.9), (at + 2, 7.0))]
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


ENV = """
from alembic import context
from threadkeep.stores.schema import PREFIX, metadata

given = context.config.attributes


def of_the_host(name, kind, parents):
    return not (kind == "table" and name.startswith(PREFIX))


def without_our_version(name, kind, parents):
    return not (kind == "table" and name == PREFIX + "version")


context.configure(
    connection=given["connection"],
    target_metadata=[given["host"], metadata] if given["together"] else given["host"],
    include_name=without_our_version if given["together"] else of_the_host,
)
with context.begin_transaction():
    context.run_migrations()
"""


SCRIPT = """revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades}
"""


@pytest.mark.parametrize("together", [True, False], ids=["both metadata", "its own alone"])
def test_a_hosts_alembic_leaves_the_tables_as_they_are(empty: URL, tmp_path: Path, together: bool) -> None:
    """As docs/databases.md tells it: with our metadata beside its own, or with names of ours left out."""
    host = MetaData()
    Table("orders", host, Column("id", Integer, primary_key=True), Column("what", String(20)))
    (tmp_path / "scripts" / "versions").mkdir(parents=True)
    (tmp_path / "scripts" / "env.py").write_text(ENV)
    (tmp_path / "scripts" / "script.py.mako").write_text(SCRIPT)
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "scripts"))
    store = SQLStore(empty)
    store.migrate()
    host.create_all(store.engine)
    with store.engine.connect() as connection:
        config.attributes.update(connection=connection, host=host, together=together)
        made = command.revision(config, autogenerate=True)
        connection.commit()
    assert isinstance(made, Script)
    written = Path(made.path).read_text()
    assert "pass" in written
    assert "op." not in written
    with store.read() as connection:
        assert differences(connection) != []  # the host's tables are seen, so ours were looked at
    store.close()
