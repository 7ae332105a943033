"""A database's own sessions as a task: every user message at its place, and what cannot be read named."""

from pathlib import Path

import pytest

from threadkeep import Budget, ImagePart, Memory, Message, ScriptedBackend, TextPart
from threadkeep.experiments.base import DatasetError
from threadkeep.experiments.tasks import Sessions


def opened(file: Path) -> Memory:
    return Memory(f"sqlite:///{file}", backend=ScriptedBackend(lambda context: "Yes."), budget=Budget(4000, reply=500))


def test_every_user_message_of_a_stored_session_is_asked_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "chat.db"
    with opened(file) as memory:
        for text in ("One?", "Two?"):
            memory.session("b").chat(text)
        memory.session("a").append(Message.user((ImagePart("https://example.org/x.png"),)), Message.user((TextPart("Look"),)))
        memory.session("c", owner="eve").chat("Not yours")
    for path in (file, f"sqlite:///{file}"):
        data = Sessions().load(path)
        assert list(data.conversations) == ["a", "b"]
        assert [one.message.text for one in data.conversations["b"].said] == ["One?", "Yes.", "Two?", "Yes."]
        assert [(q.name, q.text, q.after, q.gold) for q in data.questions] == [
            ("a#2", "Look", 1, ()),
            ("b#1", "One?", 0, ()),
            ("b#3", "Two?", 2, ()),
        ]
        assert list(data.notes) == ["user messages without text (pictures alone), not asked: 1"]
    assert [question.text for question in Sessions(owner="eve").load(file).questions] == ["Not yours"]


def test_sessions_are_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadkeep.experiments.tasks.sessions.PAGE", 2)
    with Memory(
        f"sqlite:///{tmp_path / 'chat.db'}", backend=ScriptedBackend(lambda context: "Yes."), budget=Budget(4000, reply=500)
    ) as memory:
        for name in "abcde":
            memory.session(name).append(*[Message.user(f"{name}{at}") for at in range(5)])
    data = Sessions().load(tmp_path / "chat.db")
    assert [question.text for question in data.questions] == [f"{name}{at}" for name in "abcde" for at in range(5)]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (None, "give a database's URL"),
        ("nowhere.db", "is no file"),
        ("sqlite:///nowhere.db", "is no file"),
        (Path("sqlite:///chat.db"), "hand it in as text"),
        ("://", "is no database's"),
        ("nonsense://x", "nonsense"),
    ],
)
def test_a_database_that_cannot_be_read_is_named(path: Path | str | None, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem):
        Sessions().load(path)
    assert not Path("nowhere.db").exists()


def test_a_database_without_a_session_of_the_owner_is_named(tmp_path: Path) -> None:
    with Memory(
        f"sqlite:///{tmp_path / 'chat.db'}", backend=ScriptedBackend(lambda context: "Yes."), budget=Budget(4000, reply=500)
    ) as memory:
        memory.session("a").chat("Hello")
    with pytest.raises(DatasetError, match="owner 'bob': has no session there"):
        Sessions(owner="bob").load(tmp_path / "chat.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(DatasetError, match=r"text\.db"):
        Sessions().load(tmp_path / "text.db")
