"""The options that several commands of the command line have, and the environment's variables (THREADKEEP_…) that stand in for them."""

from pathlib import Path
from typing import Annotated

import typer

Database = Annotated[
    str, typer.Option("--database", "-d", envvar="THREADKEEP_DATABASE", help="A database URL, or the path of a SQLite file.")
]
Cache = Annotated[
    Path | None, typer.Option(envvar="THREADKEEP_CACHE", help="The folder of fetched models.", show_default="the user's cache")
]
ModelName = Annotated[
    str, typer.Option("--model", "-m", envvar="THREADKEEP_MODEL", help="A model's name (see: models list) or a GGUF file.")
]
Window = Annotated[int, typer.Option(min=128, help="Tokens that a context and its reply may take.")]
Owner = Annotated[str, typer.Option(help="Whose sessions: one owner sees nothing of another.")]
Instructions = Annotated[str | None, typer.Option(help="The system prompt.")]
SessionName = Annotated[str, typer.Argument(metavar="SESSION", help="The session's name (see: sessions).")]
AsJSON = Annotated[bool, typer.Option("--json", help="For scripts: one JSON document.")]
RegisteredModel = Annotated[str, typer.Argument(metavar="NAME", help="A name from: models list.")]
