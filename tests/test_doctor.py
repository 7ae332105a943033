"""`threadkeep doctor` and `threadkeep stats`: a healthy database is found well, each kind of damage is named, nothing is changed."""

import json
import re
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import cast

import databases
import pytest
from sqlalchemy import Connection, create_engine, select, update
from typer.testing import CliRunner

from threadkeep import Budget, ImagePart, Memory, Message, ScriptedBackend, SQLStore, ToolCall, Usage
from threadkeep.cli import app
from threadkeep.embedders.hashed import HashedEmbedder
from threadkeep.stores.doctor import examine
from threadkeep.stores.findings import Check
from threadkeep.stores.schema import blobs
from threadkeep.stores.stats import measure


def fill(url: str) -> None:
    """Two owners; turns, tools, pins, tags, a late result, costs, vectors."""
    backend = ScriptedBackend(lambda _: "a reply")
    with Memory(url, backend=backend, budget=Budget(4000, reply=500), embedder=HashedEmbedder(), upkeep=False) as memory:
        for owner in ("ada", "bob"):
            session = memory.session("chat", owner=owner)
            session.append(Message.system("You help."), "Hello", metadata={"tags": ["greeting"], "importance": 0.5})
            session.append(Message.assistant(None, tool_calls=[ToolCall("a", "look", "{}")]), Message.tool("found", tool_call_id="a"))
            session.append(Message.tool("late", tool_call_id="a"))
            with session.turn("What did you find?") as turn:
                turn.finish("A parcel", usage=Usage(10, 3, cost=Decimal("0.0000123")))
            session.pin(2)
            session.chat("Thanks")
            session.upkeep()


def checks(store: SQLStore) -> dict[str, Check]:
    return {check.name: check for check in examine(store)}


def grave(store: SQLStore) -> str:
    return " / ".join(finding.said for check in examine(store) for finding in check.findings if finding.grave)


def test_a_healthy_database_is_found_well(any_url: str) -> None:
    fill(any_url)
    store = SQLStore(any_url)
    found = checks(store)
    assert {name: check.findings for name, check in found.items() if any(one.grave for one in check.findings)} == {}
    assert found["totals"].looked_at == 18
    assert found["vectors"].looked_at > 0
    assert found["words"].looked_at > 10
    assert found["costs"].looked_at >= 2
    store.close()


def test_bytes_without_what_shows_them_and_the_other_way_round_are_named(any_url: str) -> None:
    fill(any_url)
    store = SQLStore(any_url)
    with Memory(store, backend=ScriptedBackend([]), upkeep=False) as memory:
        memory.session("chat", owner="ada").append(Message.user([ImagePart.from_bytes(b"a hen", "image/png")]))
    looked = checks(store)["bytes"]
    assert (looked.findings, looked.looked_at) == ((), 5)
    with store.write() as connection:
        of_picture = connection.execute(select(blobs.c.sha256).where(blobs.c.media_type == "image/png")).scalar_one()
        connection.execute(update(blobs).where(blobs.c.sha256 == of_picture).values(sha256="0" * 64))
    lost, unused = checks(store)["bytes"].findings
    assert lost.grave
    assert lost.said.startswith("1 entries or branches show bytes that are not there")
    assert not unused.grave
    assert unused.said.startswith("1 blobs are shown by nothing, 5 bytes")
    store.close()


def fork(url: str) -> None:
    """Branches behind each kind of entry: a system message, a call, a result, a late result, a reply."""
    with Memory(url, backend=ScriptedBackend(lambda _: "a reply"), budget=Budget(4000, reply=500), upkeep=False) as memory:
        session = memory.session("chat", owner="ada")
        for at in range(10):
            session.switch("main")
            session.fork(f"at {at}", at=at)
            session.append(Message.tool("found again", tool_call_id="a"), "And then?", Message.tool("late", tool_call_id="a"))
            session.regenerate()
            session.edit(max(1, at), Message.system("You do not help."))


def test_a_database_with_branches_is_found_well(any_url: str) -> None:
    fill(any_url)
    fork(any_url)
    store = SQLStore(any_url)
    assert grave(store) == ""
    assert checks(store)["totals"].looked_at > 60
    store.close()


def test_a_branch_whose_beginning_is_gone_is_named(url: str) -> None:
    fill(url)
    fork(url)
    store = SQLStore(url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql(
            "DELETE FROM threadkeep_branches WHERE name = 'main' AND owner_id = (SELECT id FROM threadkeep_owners WHERE name = 'ada')"
        )
        connection.exec_driver_sql("DELETE FROM threadkeep_messages WHERE seq = 3")
    said = grave(store)
    assert "branch 'at 4' has lost a branch that it was forked from" in said
    assert "branch 'at 3' of session 'chat' of 'ada' was forked at entry 3, which is not there any more" in said
    store.close()


DAMAGE: list[tuple[str, str]] = [
    ("DELETE FROM threadkeep_owners WHERE name = 'bob'", "lost their owners"),
    ("DELETE FROM threadkeep_messages WHERE seq = 2", "has 8 of the entries 1 to 9"),
    ("DELETE FROM threadkeep_branches", "lost their active branch"),
    (
        "UPDATE threadkeep_messages SET cum_tokens = cum_tokens + 1 WHERE seq = 4",
        "entry 4 of branch 'main' of session 'chat' of 'ada' .*total",
    ),
    ("UPDATE threadkeep_messages SET group_seq = 4 WHERE seq = 4", "with group 4, not 3"),
    ("UPDATE threadkeep_messages SET body = '[1]' WHERE seq = 4", "entry 4 of .* is no message"),
    ("UPDATE threadkeep_messages SET body = '{' WHERE seq = 9", "entry 9 of .* is no message"),
    ("UPDATE threadkeep_branches SET head_tokens = 1", "its row says"),
    ("DELETE FROM threadkeep_terms WHERE term = 'parcel'", "entry 7 of .* has 1 words and is indexed by 0"),
    ("UPDATE threadkeep_turns SET state = 'open'", "has 2 open turns"),
    ("UPDATE threadkeep_turns SET reply_seq = NULL", "are done and have no reply"),
    ("UPDATE threadkeep_sessions SET spent = '1'", "has spent 1 by its total"),
    ("UPDATE threadkeep_owners SET spent = NULL", "owner 'ada' has spent 0"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_damage_is_named_and_left_as_it_is(url: str, damage: str, said: str) -> None:
    fill(url)
    store = SQLStore(url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql(damage)
        before = dump(connection)
    assert re.search(said, grave(store))
    with store.engine.connect() as connection:
        assert dump(connection) == before
    store.close()


def dump(connection: Connection) -> list[str]:
    """Everything that the file holds."""
    return list(cast(sqlite3.Connection, connection.connection.dbapi_connection).iterdump())


def test_vectors_of_two_sizes_under_one_name_are_named(url: str) -> None:
    fill(url)
    store = SQLStore(url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE threadkeep_vectors SET vector = x'0000' WHERE seq = 2")
    assert "two models under one name" in grave(store)
    store.close()


def test_a_turn_left_by_a_dead_process_is_worth_knowing(memory: Memory) -> None:
    memory.session("chat").chat("Hello")
    with memory.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE threadkeep_turns SET state = 'open', until_us = 1")
    (finding,) = checks(memory.store)["turns"].findings
    assert not finding.grave
    assert "ended by the next turn" in finding.said


@pytest.mark.parametrize("change", ["DROP INDEX ix_threadkeep_messages_shown", "ALTER TABLE threadkeep_pins ADD COLUMN more TEXT"])
def test_tables_that_are_not_as_they_were_made_are_named(url: str, change: str) -> None:
    fill(url)
    store = SQLStore(url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql(change)
    assert list(checks(store)) == ["tables", "settings", "file"]
    assert re.search("the tables are not as they were made: .*(messages_shown|more)", grave(store))
    store.close()


@pytest.mark.parametrize(("version", "said"), [("0001", "threadkeep migrate"), ("9999", "upgrade threadkeep")])
def test_tables_of_another_release_are_not_touched(url: str, version: str, said: str) -> None:
    fill(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE threadkeep_version SET version_num = '{version}'")
    store = SQLStore(engine)
    assert said in grave(store)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM threadkeep_version").scalar() == version
    engine.dispose()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    fill(f"sqlite:///{path}")
    content = bytearray(path.read_bytes())
    at = len(content) // 2 // 4096 * 4096
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    done = CliRunner().invoke(app, ["doctor", "--database", str(path)])
    assert done.exit_code == 1
    assert re.search("damaged|malformed", done.output)


def test_an_empty_server_is_told_to_migrate(server: databases.Kind) -> None:
    store = SQLStore(databases.new_database(server))
    assert "threadkeep migrate" in grave(store)
    store.close()


def test_the_command_says_what_is_well_and_ends_with_1_where_something_is_not(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    fill(f"sqlite:///{path}")
    done = CliRunner().invoke(app, ["doctor", "--database", str(path)])
    assert done.exit_code == 0
    assert {line.split()[0] for line in done.output.splitlines()} == {"well"}
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE threadkeep_messages SET cum_tokens = 1")
    engine.dispose()
    done = CliRunner().invoke(app, ["doctor", "--database", str(path)])
    assert done.exit_code == 1
    assert "wrong totals      18 entries" in done.output
    assert re.search("and [0-9]+ more", done.output)
    told = json.loads(CliRunner().invoke(app, ["doctor", "--database", str(path), "--json"]).output)
    assert [check["name"] for check in told if any(one["grave"] for one in check["findings"])] == ["totals"]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for command in ("doctor", "stats"):
        done = CliRunner().invoke(app, [command, "--database", str(tmp_path / "none.db")])
        assert done.exit_code == 1
        assert "there is no database" in done.output
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_is_counted(any_url: str) -> None:
    fill(any_url)
    store = SQLStore(any_url)
    found, of_one = measure(store), measure(store, "ada")
    assert (found.rows["owners"], found.rows["sessions"], found.rows["messages"], found.rows["pins"]) == (2, 2, 18, 2)
    assert (of_one.rows["owners"], of_one.rows["messages"]) == (1, 9)
    assert found.tokens == 2 * of_one.tokens > 0
    assert found.bytes
    assert [(one.owner, one.session, one.entries) for one in found.largest] == [("ada", "chat", 9), ("bob", "chat", 9)]
    assert found.first
    assert found.last
    assert found.first <= found.last
    store.close()


def test_the_figures_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    fill(f"sqlite:///{path}")
    said = CliRunner().invoke(app, ["stats", "--database", str(path)]).output
    assert "2 owners, 2 sessions, 18 entries" in said
    assert re.search("messages +18", said)
    told = json.loads(CliRunner().invoke(app, ["stats", "--database", str(path), "--json", "--owner", "ada"]).output)
    assert (told["rows"]["messages"], told["bytes"]) == (9, None)
    done = CliRunner().invoke(app, ["stats", "--database", str(path), "--owner", "nobody"])
    assert done.exit_code == 1
    assert "there is no owner 'nobody'" in done.output
