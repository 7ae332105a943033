"""The tables: made once whoever comes first, the same as the code says, an unknown version refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from threadkeep import Memory, SchemaTooNew, SchemaTooOld, SQLStore
from threadkeep.stores.schema import PREFIX, metadata
from threadkeep.stores.versions import VERSION_TABLE, VERSIONS, check_schema


def test_migrated_tables_are_those_of_the_code(url: str) -> None:
    store = SQLStore(url)
    assert store.migrate() == VERSIONS[-1]
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
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


def test_a_newer_database_is_refused_and_not_touched(url: str, memory: Memory) -> None:
    memory.session("chat").append("hello")
    with memory.store.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    store = SQLStore(url)
    for use in (store.migrate, lambda: store.session("default", "chat")):
        with pytest.raises(SchemaTooNew, match=r"9999.*upgrade threadkeep"):
            use()
    store.close()
    with memory.store.engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() == "9999"


def test_a_server_is_told_to_migrate(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with engine.connect() as connection, pytest.raises(SchemaTooOld, match="threadkeep migrate"):
        check_schema(connection)
    SQLStore(engine).migrate()
    with engine.connect() as connection:
        assert check_schema(connection)
    engine.dispose()


FIRST = """
import sys, time
from threadkeep import Budget, Memory, TiktokenCounter

memory = Memory(sys.argv[1], counter=TiktokenCounter("o200k_base"), budget=Budget(4000))
print("ready", flush=True)
sys.stdin.readline()
memory.session("chat").append(f"hello from {sys.argv[2]}")
memory.close()
"""


def test_processes_that_open_a_new_file_at_once_make_its_tables_once(url: str, memory: Memory) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", FIRST, url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        with process:
            process.communicate(timeout=60)
        assert process.returncode == 0
    said = [entry.message.text for entry in memory.session("chat").entries()]
    assert sorted(said) == [f"hello from {number}" for number in range(4)]
    with memory.store.engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").all() == [(VERSIONS[-1],)]


def migrated_to(url: str, version: str) -> None:
    """The tables as an older release made them."""
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", "threadkeep.stores:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()


def test_metadata_of_version_0001_can_be_asked_for_afterwards(url: str, memory: Memory) -> None:
    given = [
        {"tags": ["fact", "home", "fact"], "importance": 0.9},
        {"tags": "fact", "importance": "high"},
        {"tags": ["fact", 3, "", "x" * 65, "half \ud800", "a\0b"], "importance": float(7)},
        {"tags": {"fact": 1}, "importance": True, "else": 10**400},
        {"importance": 10**400},
        None,
    ] * 400  # more than the migration reads at once
    migrated_to(url, VERSIONS[0])
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


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_vectors_of_older_versions_count_in_every_turn(url: str, memory: Memory, version: str) -> None:
    migrated_to(url, version)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO threadkeep_vectors (owner_id, branch_id, seq, model, vector) VALUES (1, 2, ?, 'hashed', ?)",
            [(seq, bytes([seq % 256])) for seq in range(1, 1001)],
        )
    engine.dispose()

    assert memory.store.migrate() == VERSIONS[-1]

    with memory.store.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT owner_id, branch_id, seq, model, vector, made_at_seq FROM threadkeep_vectors ORDER BY seq"
        )
        assert found.all() == [(1, 2, seq, "hashed", bytes([seq % 256]), 0) for seq in range(1, 1001)]
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
