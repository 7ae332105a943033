"""The command line: its commands, their options, and, with that of experiments, all that reads the environment (THREADKEEP_…)."""

import tempfile
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer.core import TyperGroup

from threadkeep.embedders.sentence_transformer import SentenceTransformerEmbedder
from threadkeep.experiments.cli import app as experiment
from threadkeep.memory.errors import InvalidSetting, ThreadkeepError
from threadkeep.memory.memory import OWNER, Memory
from threadkeep.models.registry import DEFAULT
from threadkeep.stores.doctor import examine
from threadkeep.stores.jobs import Jobs
from threadkeep.stores.sql import SQLStore
from threadkeep.stores.stats import measure
from threadkeep.terminal.chat import chat as hold_chat
from threadkeep.terminal.chat import last_turn
from threadkeep.terminal.demo import WINDOW as DEMO_WINDOW
from threadkeep.terminal.demo import demo as show_demo
from threadkeep.terminal.doctor import check_data, show_checks
from threadkeep.terminal.listing import (
    branch_data,
    branches_table,
    entry_data,
    found_data,
    session_data,
    sessions_table,
    show_entry,
    show_found,
)
from threadkeep.terminal.models import app as models
from threadkeep.terminal.opening import database_url, open_backend, open_store, open_stored
from threadkeep.terminal.options import AsJSON, Cache, Database, Instructions, ModelName, Owner, SessionName, Window
from threadkeep.terminal.screen import line, open_console, say_json
from threadkeep.terminal.stats import show_stats, stats_data
from threadkeep.terminal.upkeep import catch_up, show_outcome, status_data, status_table, upkept_data
from threadkeep.terminal.usage import call_data, calls_table, usage_data, usage_table

FILE = "threadkeep.db"
"""The database where none is named: a SQLite file in the folder one stands in."""


class Commands(TyperGroup):
    """Commands that say in one line what went wrong."""

    def invoke(self, ctx: object) -> object:
        try:
            return super().invoke(ctx)  # type: ignore[arg-type]  # click's own context, which typer no longer lets one name
        except ThreadkeepError as error:
            open_console(stderr=True).print(Text.assemble(("error: ", "bold red"), line(str(error))), soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps the thread of a conversation: every message in an SQL database, and before each model call the context that fits.",
)
app.add_typer(models, name="models")
app.add_typer(experiment, name="experiment")


def _say_version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"threadkeep {metadata.version('threadkeep')}")
        except metadata.PackageNotFoundError:
            typer.echo("threadkeep, from a checkout that is not installed")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which release this is.")] = False,
) -> None:
    """Nothing is asked of every command."""


@app.command()
def demo(
    file: Annotated[
        Path | None, typer.Argument(help="Where to put the database; it must not exist yet.", show_default="a temporary folder")
    ] = None,
    model: ModelName = DEFAULT,
    cache: Cache = None,
) -> None:
    """Watch a real model answer from a long stored conversation, with every context explained. Asks nothing of you."""
    if file is not None and file.exists():
        raise InvalidSetting(f"{file} exists, and the demo begins with a fresh database: name another file, or none")
    console = open_console()
    path = file or Path(tempfile.mkdtemp(prefix="threadkeep-"), "demo.db")
    store = SQLStore(database_url(str(path)))  # before the model: a folder that is missing is said at once
    with closing(open_backend(console, model, DEMO_WINDOW, cache, temperature=0)) as backend:
        show_demo(console, backend, store, path)


@app.command()
def chat(
    database: Database = FILE,
    session: Annotated[str, typer.Option("--session", "-s", help="The session to go on with, or to begin.")] = "chat",
    owner: Owner = OWNER,
    model: ModelName = DEFAULT,
    window: Window = 8192,
    instructions: Instructions = None,
    cache: Cache = None,
) -> None:
    """Talk with a local model. The session is kept: come back, and it goes on where it was."""
    console = open_console()
    store = SQLStore(database_url(database))
    with (
        closing(open_backend(console, model, window, cache)) as backend,
        Memory(store, backend=backend, instructions=instructions) as memory,
    ):
        hold_chat(console, memory, memory.session(session, owner=owner))


@app.command()
def sessions(
    database: Database = FILE,
    owner: Owner = OWNER,
    after: Annotated[str | None, typer.Option(help="Begin behind this session.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJSON = False,
) -> None:
    """List the sessions of an owner, the last used first."""
    with open_stored(database) as memory:
        listed = memory.sessions(owner=owner, after=after, limit=limit)
    if as_json:
        say_json([session_data(session) for session in listed])
    elif listed:
        open_console().print(sessions_table(listed))
    else:
        open_console().print(Text(f"There is no session of owner {line(owner)} here."))


@app.command()
def show(
    session: SessionName,
    database: Database = FILE,
    owner: Owner = OWNER,
    after: Annotated[int, typer.Option(min=0, help="Begin behind the entry of this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many entries.")] = 50,
    branch: Annotated[str | None, typer.Option(help="A branch (see: branches).", show_default="the active one")] = None,
    as_json: AsJSON = False,
) -> None:
    """Show what was said in a session, oldest first."""
    with open_stored(database) as memory:
        entries = memory.session(session, owner=owner).entries(after=after, limit=limit + 1, branch=branch)
    page, more = entries[:limit], len(entries) > limit
    if as_json:
        say_json([entry_data(entry) for entry in page])
        return
    console = open_console()
    for entry in page:
        show_entry(console, entry)
    if more:
        console.print(Text(f"There is more: --after {page[-1].seq}", style="dim"))
    elif not page:
        console.print(Text(f"There is nothing behind entry {after}."))


@app.command()
def branches(
    session: SessionName,
    database: Database = FILE,
    owner: Owner = OWNER,
    after: Annotated[str | None, typer.Option(help="Begin behind this branch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJSON = False,
) -> None:
    """List the branches of a session, the newest first: where each was forked, and which one is active."""
    with open_stored(database) as memory:
        listed = memory.session(session, owner=owner).branches(after=after, limit=limit)
    if as_json:
        say_json([branch_data(branch) for branch in listed])
    elif listed:
        open_console().print(branches_table(listed))
    else:
        open_console().print(Text(f"There is no branch behind {line(after or '')}."))


@app.command()
def explain(
    session: SessionName,
    turn: Annotated[int | None, typer.Option(min=1, help="The context that this turn was sent.", show_default="the last")] = None,
    message: Annotated[str | None, typer.Option(help="The context as if this was said next; stores nothing.")] = None,
    database: Database = FILE,
    owner: Owner = OWNER,
    model: ModelName = DEFAULT,
    window: Window = 8192,
    instructions: Instructions = None,
    cache: Cache = None,
    as_json: AsJSON = False,
) -> None:
    """Explain a context: where its tokens went, and what became of every entry.

    Of a turn it is made again from its stored record, which loads no model. The model, the window and the instructions matter only with
    --message, and for a session that has had no turn yet.
    """
    if turn is not None and message is not None:
        raise typer.BadParameter("a past turn has its message: give one of --turn and --message")
    with open_stored(database) as memory:
        known = memory.session(session, owner=owner)
        known.entries(limit=1)  # a misspelt name is said before a model is loaded
        if turn is None and message is None:
            turn = last_turn(memory, known)
        if turn is not None:
            context = known.context(as_of=turn)
        else:
            with closing(open_backend(open_console(stderr=True), model, window, cache)) as backend:
                supposed = Memory(memory.store, backend=backend, instructions=instructions)
                context = supposed.session(session, owner=owner).context(message)
    explanation = context.explain()
    if as_json:
        say_json({"session": session, "turn": turn} | explanation.data)
        return
    console = open_console()
    what = f"turn {turn}" if turn is not None else "as if it came next" if message is not None else "as the log is now"
    console.print(Text.assemble(("session ", "dim"), (line(session), "bold"), (f" · {what}", "dim")))
    console.print(explanation)


@app.command()
def search(
    session: SessionName,
    text: Annotated[str, typer.Argument(help="A question, or words.")],
    k: Annotated[int, typer.Option("-k", min=1, help="At most so many entries.")] = 10,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Look in all sessions of the owner.")] = False,
    embedder: Annotated[
        str | None, typer.Option(envvar="THREADKEEP_EMBEDDER", help="Rank by meaning too, with the model that the service embeds with.")
    ] = None,
    database: Database = FILE,
    owner: Owner = OWNER,
    cache: Cache = None,
    as_json: AsJSON = False,
) -> None:
    """Find what was said about a text, as recall ranks it; the best first."""
    model = None if embedder is None else SentenceTransformerEmbedder(embedder, cache=cache)
    with open_stored(database, model) as memory:
        found = memory.session(session, owner=owner).search(text, k, scope="owner" if everywhere else "session")
    if as_json:
        say_json([found_data(one) for one in found])
        return
    console = open_console()
    if not found:
        console.print(Text("Nothing was said about it."))
    for one in found:
        show_found(console, one, named=everywhere)


@app.command()
def usage(
    database: Database = FILE,
    owner: Owner = OWNER,
    session: Annotated[str | None, typer.Option("--session", "-s", help="One session's.", show_default="all of the owner's")] = None,
    as_json: AsJSON = False,
) -> None:
    """Show what model calls took and cost, by model and purpose, the dearest first."""
    with open_stored(database) as memory:
        used = memory.usage(owner=owner, session=session)
    if as_json:
        say_json([usage_data(one) for one in used])
    elif used:
        open_console().print(usage_table(used))
    else:
        open_console().print(Text(f"No model was called for owner {line(owner)} yet."))


@app.command()
def calls(
    session: SessionName,
    database: Database = FILE,
    owner: Owner = OWNER,
    after: Annotated[int, typer.Option(min=0, help="Begin behind the call of this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many calls.")] = 50,
    as_json: AsJSON = False,
) -> None:
    """Show the model calls of a session, oldest first, with what each took and cost."""
    with open_stored(database) as memory:
        made = memory.session(session, owner=owner).calls(after, limit + 1)
    page, more = made[:limit], len(made) > limit
    if as_json:
        say_json([call_data(call) for call in page])
        return
    open_console().print(calls_table(page) if page else Text(f"There is no model call{f' behind {after}' if after else ''}."))
    if more:
        open_console().print(Text(f"There is more: --after {page[-1].id}", style="dim"))


@app.command()
def upkeep(
    status: Annotated[bool, typer.Option("--status", help="Show how far every job is, those that fail first; does nothing.")] = False,
    embedder: Annotated[
        str | None, typer.Option(envvar="THREADKEEP_EMBEDDER", help="Make the vectors that are missing, with this model or folder.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whose sessions.", show_default="everybody's")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many jobs in the status.")] = 100,
    database: Database = FILE,
    cache: Cache = None,
    as_json: AsJSON = False,
) -> None:
    """Show the slow work between turns, or catch up with it.

    Summaries are made by the service itself, which alone knows its strategy: `memory.upkeep()` does it there.
    """
    if not status and embedder is None:
        raise typer.BadParameter("say what to do: --status, or --embedder with the model that the service embeds with (see: models list)")
    console = open_console(stderr=as_json)
    with open_stored(database) as memory:
        if status:
            jobs = Jobs(memory.store).status(owner, limit)
            if as_json:
                say_json([status_data(job) for job in jobs])
            else:
                console.print(status_table(jobs) if jobs else Text("There are no jobs of upkeep here."))
            return
        made = catch_up(console, memory.store, SentenceTransformerEmbedder(str(embedder), cache=cache), owner)
    if as_json:
        say_json([upkept_data(one) for one in made])
    else:
        show_outcome(console, made)
    if any(one.state != "done" for one in made):
        raise typer.Exit(1)


@app.command()
def migrate(database: Database = FILE) -> None:
    """Bring a database's tables to this release's form. A SQLite file is also migrated whenever it is opened."""
    with closing(SQLStore(database_url(database))) as store:
        version = store.migrate()
    open_console().print(Text(f"The tables are of version {version}."))


@app.command()
def doctor(database: Database = FILE, as_json: AsJSON = False) -> None:
    """Look a database over, its tables, settings, totals and indexes; changes nothing. Ends with 1 where something is wrong."""
    with closing(open_store(database)) as store:
        if as_json:
            checks = list(examine(store))
            say_json([check_data(check) for check in checks])
            well = not any(finding.grave for check in checks for finding in check.findings)
        else:
            well = show_checks(open_console(), examine(store))
    if not well:
        raise typer.Exit(1)


@app.command()
def stats(
    database: Database = FILE,
    owner: Annotated[str | None, typer.Option(help="One owner's.", show_default="everybody's")] = None,
    as_json: AsJSON = False,
) -> None:
    """Show how much there is: owners, sessions, entries, rows and bytes by table, the largest sessions."""
    with closing(open_store(database)) as store:
        found = measure(store, owner)
    if as_json:
        say_json(stats_data(found))
    else:
        show_stats(open_console(), found)
