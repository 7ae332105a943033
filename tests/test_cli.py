"""The command line: what it says, what it stores, and what it never loads."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from threadkeep import Budget, Context, Memory, Message, ScriptedBackend, ToolCall, Usage
from threadkeep.backends.base import Backend
from threadkeep.cli import app
from threadkeep.stores.versions import VERSIONS
from threadkeep.terminal.conversation import QUESTIONS, said

ROOT = Path(__file__).parent.parent
COMMANDS = [
    "demo",
    "chat",
    "sessions",
    "show",
    "branches",
    "explain",
    "search",
    "usage",
    "calls",
    "upkeep",
    "migrate",
    "doctor",
    "stats",
    "models",
    "experiment",
]

Answers = Callable[[Context], str]


class Terminal:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.database = folder / "chat.db"
        self.opened: list[tuple[str, int]] = []
        self.closed = 0
        self._patch = patch

    def answered_by(self, answers: Answers) -> None:
        """Let a script stand in for the local model."""

        def open_backend(console: object, model: str, window: int, cache: Path | None, *, temperature: float = 0.7) -> Backend:
            backend = ScriptedBackend(answers, window=window)
            self.opened.append((model, window))
            self._patch.setattr(backend, "close", self._close)
            return backend

        self._patch.setattr("threadkeep.cli.open_backend", open_backend)

    def _close(self) -> None:
        self.closed += 1

    def run(self, *arguments: str, typed: str = "", code: int = 0) -> str:
        """A command's stdout; for one that fails, its stderr."""
        done = CliRunner().invoke(app, arguments, input=typed, env={"THREADKEEP_DATABASE": str(self.database)})
        assert done.exit_code == code, (done.exit_code, done.output, done.exception)
        return done.stderr if code else done.stdout

    def memory(self, answers: Answers | None = None) -> Memory:
        """The same database through the library."""
        return Memory(f"sqlite:///{self.database}", backend=ScriptedBackend(answers or repeat), budget=Budget(4000, reply=500))


def repeat(context: Context) -> str:
    return f"You said: {context.messages[-1]['content']}"


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(tmp_path)
    made = Terminal(tmp_path, monkeypatch)
    made.answered_by(repeat)
    return made


@pytest.fixture
def stored(terminal: Terminal) -> Terminal:
    """A terminal whose database holds two sessions, one of three turns."""
    with terminal.memory() as memory:
        for text in ("My name is Ada.", "I live in Ghent.", "I like trains."):
            memory.session("travel").chat(text)
        memory.session("other").append(Message.user("An import."), created_at=datetime(2026, 3, 1, 12, tzinfo=UTC))
    return terminal


class TestLooking:
    def test_help_names_every_command(self, terminal: Terminal) -> None:
        output = terminal.run("--help")

        assert re.findall(r"^│ ([a-z]+) ", output, re.MULTILINE) == COMMANDS

    @pytest.mark.parametrize("command", [*COMMANDS, "models list", "models pull", "models path", "models remove", "experiment run"])
    def test_every_command_explains_itself(self, terminal: Terminal, command: str) -> None:
        assert "Usage: " in terminal.run(*command.split(), "--help")

    def test_the_version_is_the_release(self, terminal: Terminal) -> None:
        release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

        assert terminal.run("--version").strip() in (f"threadkeep {release}", "threadkeep, from a checkout that is not installed")

    def test_sessions_come_the_last_used_first(self, stored: Terminal) -> None:
        lines = stored.run("sessions").splitlines()

        assert [line.split()[0] for line in lines] == ["session", "other", "travel"]
        assert lines[2].split()[1] == "6"

    def test_sessions_as_json(self, stored: Terminal) -> None:
        (other, travel) = json.loads(stored.run("sessions", "--json"))

        assert (other["name"], other["entries"]) == ("other", 1)
        assert (travel["name"], travel["entries"]) == ("travel", 6)
        assert datetime.fromisoformat(travel["updated_at"]).tzinfo is not None

    def test_another_owner_sees_none_of_them(self, stored: Terminal) -> None:
        assert "no session of owner grace" in stored.run("sessions", "--owner", "grace")
        assert json.loads(stored.run("sessions", "--owner", "grace", "--json")) == []
        assert "no session 'travel'" in stored.run("show", "travel", "--owner", "grace", code=1)

    def test_show_gives_a_page_and_says_how_to_go_on(self, stored: Terminal) -> None:
        first = stored.run("show", "travel", "--limit", "4")
        rest = stored.run("show", "travel", "--after", "4")

        assert "My name is Ada." in first
        assert "I like trains." not in first
        assert "--after 4" in first
        assert "I like trains." in rest
        assert "My name is Ada." not in rest
        assert "--after" not in rest
        assert "nothing behind entry 6" in stored.run("show", "travel", "--after", "6")

    def test_show_as_json_is_the_log(self, stored: Terminal) -> None:
        entries = json.loads(stored.run("show", "travel", "--json", "--limit", "2"))

        assert [entry["seq"] for entry in entries] == [1, 2]
        assert entries[0]["message"] == {"role": "user", "content": "My name is Ada."}
        assert entries[1]["status"] == "complete"

    def test_show_says_what_is_no_text(self, terminal: Terminal) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
        sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        call = ToolCall("call-1", "find_train", '{"to": "Lisbon"}')
        with terminal.memory() as memory:
            session = memory.session("parts")
            session.append({"role": "user", "content": [{"type": "text", "text": "Look:"}, picture, sound]})
            session.append(Message.assistant(None, tool_calls=[call]), Message.tool("9:39", tool_call_id="call-1"), Message.assistant(""))

        output = terminal.run("show", "parts")

        assert "Look:" in output
        assert "[image: image/png, 3.8 kB]" in output
        assert "AAAA" not in output + terminal.run("show", "parts", "--json").replace('"data": "AAAA"', "")
        assert len(output) < 2000
        assert "[input_audio]" in output
        assert '[calls find_train({"to": "Lisbon"})]' in output
        assert "9:39" in output

    def test_nothing_stored_reaches_the_terminal_as_a_command(self, terminal: Terminal) -> None:
        with terminal.memory() as memory:
            memory.session("evil \x1b[2J").append(Message.user("clear \x1b[2J, bell \a, lone \ud800, tab\there, [bold]markup[/bold]"))

        output = terminal.run("sessions") + terminal.run("show", "evil \x1b[2J") + terminal.run("chat", "-s", "evil \x1b[2J")

        assert "\x1b" not in output
        assert "\a" not in output
        assert "[bold]markup[/bold]" in output
        assert "tab here" in output

    def test_branches_are_listed_and_shown(self, stored: Terminal) -> None:
        with stored.memory() as memory:
            memory.session("travel").fork("other way", at=4)
            memory.session("travel").append("Then by boat.")

        listed = json.loads(stored.run("branches", "travel", "--json"))
        assert [(one["name"], one["parent"], one["at"], one["entries"], one["active"]) for one in listed] == [
            ("other way", "main", 4, 5, True),
            ("main", None, 0, 6, False),
        ]
        table = stored.run("branches", "travel")
        assert re.search(r"^\* +other way +main +4 +5 ", table, re.MULTILINE)
        assert re.search(r"^ +main +6 ", table, re.MULTILINE)
        assert len(stored.run("branches", "travel", "--limit", "1").splitlines()) == 2
        assert "no branch behind main" in stored.run("branches", "travel", "--after", "main")
        assert "Then by boat." in stored.run("show", "travel")
        assert "Then by boat." not in stored.run("show", "travel", "--branch", "main")
        assert "no branch 'third'" in stored.run("show", "travel", "--branch", "third", code=1)
        assert "turn 2" in stored.run("explain", "travel")
        assert json.loads(stored.run("explain", "travel", "--turn", "3", "--json"))["decisions"][-1]["last"] == 5

    def test_explain_tells_what_the_last_turn_was_sent(self, stored: Terminal) -> None:
        output = stored.run("explain", "travel")

        assert "turn 3" in output
        assert re.search(r"1-5 +kept", output)

    def test_explain_tells_of_any_turn(self, stored: Terminal) -> None:
        account = json.loads(stored.run("explain", "travel", "--turn", "2", "--json"))

        assert (account["session"], account["turn"]) == ("travel", 2)
        assert account["decisions"][-1]["last"] == 3
        assert "no turn 9" in stored.run("explain", "travel", "--turn", "9", code=1)

    def test_explain_supposes_a_message_and_stores_nothing(self, stored: Terminal) -> None:
        account = json.loads(stored.run("explain", "travel", "--message", "And next?", "--window", "600", "--json"))

        assert account["decisions"][-1]["last"] == 7
        assert account["budget"]["window"] == 600
        assert stored.opened == [("qwen2.5-coder-0.5b", 600)]
        assert stored.closed == 1
        assert "nothing behind entry 6" in stored.run("show", "travel", "--after", "6")
        assert "as if it came next" in stored.run("explain", "travel", "--message", "And next?")

    def test_a_log_without_turns_is_explained_as_it_is(self, terminal: Terminal) -> None:
        with terminal.memory() as memory:
            memory.session("log").append(Message.user("An import."), Message.assistant("Thanks."))

        output = terminal.run("explain", "log")

        assert "as the log is now" in output
        assert re.search(r"1-2 +kept", output)
        assert terminal.opened == [("qwen2.5-coder-0.5b", 8192)]

    def test_looking_loads_no_model(self, stored: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("threadkeep.cli.open_backend", "threadkeep.memory.setup.LlamaCpp"):
            monkeypatch.setattr(name, lambda *given, **named: pytest.fail("a model was opened"))

        for command in ("sessions", "show travel", "explain travel", "explain travel --turn 1", "migrate", "models list"):
            stored.run(*command.split())

    def test_looking_makes_no_database(self, terminal: Terminal) -> None:
        for command in ("sessions", "show travel", "explain travel"):
            assert "threadkeep chat" in terminal.run(*command.split(), code=1)
            assert "threadkeep chat" in terminal.run(*command.split(), "-d", "sqlite://", code=1)
        assert list(terminal.folder.iterdir()) == []

    def test_migrate_makes_the_tables_and_says_their_version(self, terminal: Terminal) -> None:
        assert f"version {VERSIONS[-1]}" in terminal.run("migrate")
        assert "no session" in terminal.run("sessions")
        assert f"version {VERSIONS[-1]}" in terminal.run("migrate", "--database", f"sqlite:///{terminal.database}")


class TestErrors:
    @pytest.mark.parametrize(
        ("command", "says"),
        [
            ("show nobody", "no session 'nobody'"),
            ("explain nobody --message hello", "no session 'nobody'"),
            ("sessions --after nobody", "no session 'nobody'"),
            ("sessions -d oracle://host/name", "not supported"),
            ("sessions -d ://", "no database URL"),
            ("migrate -d sqlite:////no/such/folder/chat.db", "/no/such/folder"),
            ("chat -d /no/such/folder/chat.db", "/no/such/folder"),
            ("demo /no/such/folder/demo.db", "/no/such/folder"),
            ("models path nix", "smollm2-135m"),
            ("models pull nix", "smollm2-135m"),
            ("models remove nix", "smollm2-135m"),
            ("models path qwen2.5-coder-1.5b --cache nowhere", "models pull qwen2.5-coder-1.5b"),
        ],
    )
    def test_what_went_wrong_is_one_line_on_stderr(self, stored: Terminal, command: str, says: str) -> None:
        output = stored.run(*command.split(), code=1)

        assert output.startswith("error: ")
        assert output.count("\n") == 1
        assert says in output
        assert stored.opened == []

    @pytest.mark.parametrize(
        "command",
        [
            "nothing",
            "show",
            "show travel --limit 0",
            "show travel --after -1",
            "explain travel --turn 1 --message x",
            "chat --window 5",
            "--nix",
        ],
    )
    def test_wrong_usage_ends_with_2(self, stored: Terminal, command: str) -> None:
        assert "Usage: " in stored.run(*command.split(), code=2)

    def test_a_file_that_is_no_database_is_said(self, terminal: Terminal) -> None:
        terminal.database.write_text("a shopping list, much longer than a header of SQLite would be" * 20)

        assert "not a database" in terminal.run("sessions", code=1)

    def test_a_model_that_does_not_exist_is_said(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()

        done = CliRunner().invoke(app, ["chat", "-d", str(terminal.database), "-m", "no-such-model"])

        assert done.exit_code == 1
        assert "no-such-model" in done.stderr
        assert done.stderr.count("\n") == 1


class TestChat:
    def test_what_is_said_is_answered_and_kept(self, terminal: Terminal) -> None:
        output = terminal.run("chat", typed="Hello there.\n\nHow are you?\n")

        assert "You said: Hello there." in output
        assert "You said: How are you?" in output
        assert "turn 2" in output
        with terminal.memory() as memory:
            assert [entry.role for entry in memory.session("chat").entries()] == ["user", "assistant"] * 2
        assert terminal.closed == 1

    def test_a_session_goes_on_where_it_was(self, stored: Terminal) -> None:
        output = stored.run("chat", "--session", "travel", typed="Still there?\n/quit\nnever said\n")

        assert "goes on after 6 entries" in output
        assert "My name is Ada." in output
        with stored.memory() as memory:
            entries = memory.session("travel").entries(after=6)
        assert [entry.message.text for entry in entries] == ["Still there?", "You said: Still there?"]

    def test_only_the_last_entries_of_a_long_session_are_shown_again(self, terminal: Terminal) -> None:
        with terminal.memory() as memory:
            memory.session("long").append(*[Message.user(f"number {number}") for number in range(1, 41)])

        output = terminal.run("chat", "-s", "long")

        assert re.findall(r"number (\d+)", output) == ["35", "36", "37", "38", "39", "40"]

    def test_its_commands(self, stored: Terminal) -> None:
        output = stored.run("chat", "-s", "travel", typed="/help\n/sessions\n/context\n/nix\n/exit\n")

        assert "/quit" in output
        assert "other" in output
        assert re.search(r"1-5 +kept", output)
        assert "there is no /nix" in output
        with stored.memory() as memory:
            assert len(memory.session("travel").entries()) == 6

    def test_the_context_of_a_session_that_begins_is_empty(self, terminal: Terminal) -> None:
        assert "0%" in terminal.run("chat", typed="/context\n")

    def test_options_reach_the_model(self, terminal: Terminal) -> None:
        terminal.answered_by(lambda context: str(context.messages[0]["content"]))

        output = terminal.run(
            "chat", "-m", "a-model", "--window", "500", "--owner", "grace", "--instructions", "Speak Dutch.", typed="Hi\n"
        )

        assert terminal.opened == [("a-model", 500)]
        assert "Speak Dutch." in output
        with terminal.memory() as memory:
            assert [session.name for session in memory.sessions(owner="grace")] == ["chat"]

    def test_a_failing_turn_does_not_end_the_chat(self, terminal: Terminal) -> None:
        terminal.answered_by(lambda context: 5 if "five" in str(context.messages[-1]) else "well")  # type: ignore[return-value,arg-type]  # no text

        output = terminal.run("chat", "--window", "300", typed="five\nsix\n" + "too long " * 400 + "\n")

        assert output.count("error: ") == 2
        assert "well" in output
        assert "Give a larger window" in output

    def test_ctrl_c_keeps_what_was_said_and_the_chat_goes_on(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        def open_backend(console: object, model: str, window: int, cache: Path | None) -> Backend:
            backend = ScriptedBackend(["one two three", "four"], window=window)
            events = backend.stream

            def interrupted(context: Context) -> object:
                for place, event in enumerate(events(context)):
                    if place == 2 and len(backend.seen) == 1:
                        signal.raise_signal(signal.SIGINT)
                    yield event

            monkeypatch.setattr(backend, "stream", interrupted)
            return backend

        monkeypatch.setattr("threadkeep.cli.open_backend", open_backend)

        output = terminal.run("chat", typed="count\nand on\n")

        assert "stopped, and kept · turn 1" in output
        with terminal.memory() as memory:
            entries = memory.session("chat").entries()
        assert [entry.status for entry in entries] == ["complete", "interrupted", "complete", "complete"]
        cut = entries[1].message.text.strip()
        assert cut.startswith("one two")
        assert f"  {cut}\n  stopped" in output, "what is stored is what was shown"
        assert [entry.message.text for entry in entries[2:]] == ["and on", "four"]

    def test_ctrl_c_before_a_word_was_said_leaves_no_reply(self, terminal: Terminal) -> None:
        def interrupted(context: Context) -> str:
            signal.raise_signal(signal.SIGINT)
            return ""

        terminal.answered_by(interrupted)

        assert "stopped before anything was said" in terminal.run("chat", typed="hello\n")
        with terminal.memory() as memory:
            assert [entry.role for entry in memory.session("chat").entries()] == ["user"]

    def test_a_second_ctrl_c_breaks_off(self, terminal: Terminal) -> None:
        def stuck(context: Context) -> str:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return "never said"

        terminal.answered_by(stuck)
        before = signal.getsignal(signal.SIGINT)

        terminal.run("chat", typed="hello\n", code=130)
        assert signal.getsignal(signal.SIGINT) is before

    def test_ctrl_c_at_the_prompt_says_how_to_leave(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        typed = iter([KeyboardInterrupt(), EOFError()])

        def read(prompt: str) -> str:
            raise next(typed)

        monkeypatch.setattr("builtins.input", read)

        assert "/quit or Ctrl-D leaves" in terminal.run("chat")

    def test_long_replies_break_between_words(self, terminal: Terminal) -> None:
        words = "Tiles, trams and a long line of words that goes on past the margin of any screen there is. " * 5
        terminal.answered_by(lambda context: f"{words}\n\nA new paragraph, and a word of {'x' * 150} letters.")

        lines = terminal.run("chat", typed="Go on.\n").splitlines()

        assert max(map(len, lines)) <= 152
        assert " ".join(" ".join(lines).split()).count(words.strip()) == 1
        assert "  A new paragraph, and a word of" in lines


class TestDemo:
    def test_each_answer_is_said_in_one_message_only(self) -> None:
        for question in QUESTIONS:
            assert sum(question.answer.casefold() in message.text.casefold() for message, _ in said()) == 1, question.fact

    def test_the_conversation_is_as_it_would_be(self) -> None:
        messages = list(said())

        assert [message.role for message, _ in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert [at for _, at in messages] == sorted(at for _, at in messages)
        assert 40 <= len(messages) <= 60

    def test_a_model_that_reads_all_it_is_shown_knows_what_the_window_holds_and_nothing_else(self, terminal: Terminal) -> None:
        def reader(context: Context) -> str:
            shown = " ".join(str(message["content"]) for message in context.messages[:-1])
            (question,) = [question for question in QUESTIONS if question.text == context.messages[-1]["content"]]
            return question.answer if question.answer in shown else "I do not know."

        terminal.answered_by(reader)
        output = terminal.run("demo", "holiday.db")

        assert "Inside the window: 3 of 3 answered rightly." in output
        assert "Outside: 0 of 2. The model was never shown Biscuit or Ghent" in output
        assert "Recall found 2 of 2 facts that the window had lost; 2 of 2 answered rightly." in output
        assert output.count("begins as the turn before") >= len(QUESTIONS) - 2, "the cut may move once, where a counter counts otherwise"
        assert output.count("left out") >= len(QUESTIONS)
        assert max(map(len, output.splitlines())) <= 100
        assert "\x1b" not in output
        assert terminal.closed == 1

    def test_wrong_answers_are_called_wrong_and_luck_luck(self, terminal: Terminal) -> None:
        terminal.answered_by(lambda context: "In Ghent, I guess.")
        output = terminal.run("demo")

        assert "Inside the window: 0 of 3 answered rightly. The words were there, and the model did not use them." in output
        assert "right by luck" in output
        assert "Outside: 1 of 2." in output

    def test_what_it_names_at_the_end_works(self, terminal: Terminal) -> None:
        output = terminal.run("demo", "my holiday.db")

        commands = re.findall(r"^  threadkeep (\w+) .*-d 'my holiday\.db'", output, re.MULTILINE)
        assert commands == ["show", "explain", "chat"]
        assert "I'm Ada Lindqvist" in terminal.run("show", "demo", "-d", "my holiday.db")
        assert "turn 5" in terminal.run("explain", "demo", "-d", "my holiday.db")
        assert "goes on after 60 entries" in terminal.run("chat", "-s", "demo", "-d", "my holiday.db")

    def test_it_writes_over_no_file(self, terminal: Terminal) -> None:
        (terminal.folder / "precious.db").write_text("precious")

        assert "precious.db exists" in terminal.run("demo", "precious.db", code=1)
        assert (terminal.folder / "precious.db").read_text() == "precious"


class TestModels:
    def test_list_says_which_are_here(self, terminal: Terminal) -> None:
        listed = json.loads(terminal.run("models", "list", "--json", "--cache", str(terminal.folder)))

        assert {model["name"] for model in listed} > {"smollm2-135m", "qwen2.5-coder-0.5b"}
        assert all(model["path"] is None for model in listed)
        assert "qwen2.5-coder-0.5b" in terminal.run("models", "list")

    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A cache with a registered model of twelve bytes."""
        import hashlib

        from threadkeep.models.registry import MODELS, File, Model

        content = b"twelve bytes"
        model = Model("tiny", "chat", (File("tiny.gguf", 12, hashlib.sha256(content).hexdigest()),), "MIT", "small", ())
        monkeypatch.setitem(MODELS, "tiny", model)
        folder = tmp_path / "cache"
        folder.mkdir()
        (folder / "tiny.gguf").write_bytes(content)
        monkeypatch.setenv("THREADKEEP_CACHE", str(folder))
        return folder

    def test_path_and_pull_of_a_model_that_is_here(self, terminal: Terminal, cache: Path) -> None:
        assert terminal.run("models", "path", "tiny").strip() == str(cache / "tiny.gguf")
        assert terminal.run("models", "pull", "tiny").strip() == str(cache / "tiny.gguf")
        (listed,) = [model for model in json.loads(terminal.run("models", "list", "--json")) if model["name"] == "tiny"]
        assert listed["path"] == str(cache / "tiny.gguf")

    def test_pull_does_not_trust_a_file_by_its_size(self, terminal: Terminal, cache: Path) -> None:
        (cache / "tiny.gguf").write_bytes(b"twelve Bytes")

        assert "models remove tiny" in terminal.run("models", "pull", "tiny", code=1)

    def test_remove_says_what_it_freed(self, terminal: Terminal, cache: Path) -> None:
        assert "freed" in terminal.run("models", "remove", "tiny")
        assert not (cache / "tiny.gguf").exists()
        assert "was not here" in terminal.run("models", "remove", "tiny")


class TestInAProcess:
    def start(self, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "threadkeep", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_output_may_be_cut_off(self, stored: Terminal) -> None:
        """As `threadkeep show … | head -1` does."""
        with stored.memory() as memory:
            memory.session("long").append(*[Message.user("A line of some length. " * 20) for _ in range(400)])
        process = self.start(stored.folder, "show", "long", "-d", str(stored.database), "--limit", "400")
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()

            assert process.stderr.read() == ""

    @pytest.mark.model
    def test_ctrl_c_stops_a_real_model_and_the_chat_goes_on(self, terminal: Terminal) -> None:
        with self.start(terminal.folder, "chat", "-d", str(terminal.database), "-m", "smollm2-135m", "--window", "2048") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("Tell me a very long story about a dragon and a lighthouse.\n")
            process.stdin.flush()
            assert any("lighthouse" in line for line in process.stdout), "the chat ended before it read what was typed"
            process.stdout.read(20)  # the reply has begun

            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate("/quit\n", timeout=60)

        assert process.returncode == 0, errors
        assert "stopped, and kept · turn 1" in rest
        with terminal.memory() as memory:
            story, cut = memory.session("chat").entries()
        assert story.message.text.startswith("Tell me")
        assert cut.status == "interrupted"
        assert cut.message.text


class TestUsage:
    def filled(self, terminal: Terminal) -> None:
        with terminal.memory() as memory:
            for owner, name, cost in (("ada", "one", "0.000123"), ("ada", "two", "0.1"), ("ada", "two", None), ("ben", "one", "5")):
                with memory.session(name, owner=owner).turn("Hello") as turn:
                    usage = Usage(1000, 20, 400, total_ms=1500, cost=None if cost is None else Decimal(cost))
                    turn.end(Message.assistant("yes"), "complete", usage, "stop", "remote" if cost else "local\x1b[2J")

    def test_adds_up_what_model_calls_took(self, terminal: Terminal) -> None:
        self.filled(terminal)
        lines = [line.split() for line in terminal.run("usage", "--owner", "ada").splitlines()]
        assert lines == [
            ["model", "for", "calls", "sent", "cached", "said", "seconds", "US", "dollars"],
            ["remote", "reply", "2", "2,000", "800", "40", "3.0", "0.100123"],
            ["local\N{REPLACEMENT CHARACTER}[2J", "reply", "1", "1,000", "400", "20", "1.5", "0", "+", "1", "unpriced"],
            ["all", "3", "3,000", "1,200", "60", "4.5", "0.100123", "+", "1", "unpriced"],
        ]

    def test_gives_one_session_as_data(self, terminal: Terminal) -> None:
        self.filled(terminal)
        (used,) = json.loads(terminal.run("usage", "--owner", "ada", "--session", "one", "--json"))
        assert used == {
            "model": "remote",
            "purpose": "reply",
            "calls": 1,
            "prompt_tokens": 1000,
            "cached_tokens": 400,
            "completion_tokens": 20,
            "total_ms": 1500,
            "cost": "0.000123",
            "unpriced": 0,
        }

    def test_shows_calls_one_by_one_a_page_at_a_time(self, terminal: Terminal) -> None:
        self.filled(terminal)
        head, *rows, more = terminal.run("calls", "two", "--owner", "ada", "--limit", "1").splitlines()
        assert head.split() == ["at", "turn", "model", "for", "sent", "cached", "said", "seconds", "US", "dollars", "ended"]
        assert [row.split()[2:] for row in rows] == [["1", "remote", "reply", "1,000", "400", "20", "1.5", "0.1", "complete"]]
        after = more.rpartition(" ")[2]
        (call,) = json.loads(terminal.run("calls", "two", "--owner", "ada", "--after", after, "--json"))
        assert (call["turn_id"], call["model"], call["cost"], call["prompt_tokens"]) == (2, "local\x1b[2J", None, 1000)
        assert call["id"] > int(after)
        end = terminal.run("calls", "two", "--owner", "ada", "--after", str(call["id"])).strip()
        assert end == f"There is no model call behind {call['id']}."

    def test_of_nobody_is_empty_and_of_no_session_an_error(self, terminal: Terminal) -> None:
        self.filled(terminal)
        assert terminal.run("usage").strip() == "No model was called for owner default yet."
        assert json.loads(terminal.run("usage", "--json")) == []
        assert "there is no session" in terminal.run("usage", "--session", "none", code=1)
