"""The commands about models that are known by name."""

import typer
from rich.table import Table
from rich.text import Text

from threadkeep.memory.errors import ModelUnavailable, NotFound
from threadkeep.models import fetch
from threadkeep.models.registry import MODELS
from threadkeep.terminal.options import AsJSON, Cache, RegisteredModel
from threadkeep.terminal.screen import open_console, say_json

app = typer.Typer(no_args_is_help=True, help="The models known by name: fetched once, verified, kept in the cache.")


@app.command("list")
def list_models(cache: Cache = None, as_json: AsJSON = False) -> None:
    """List the models known by name, and which of them are here."""
    here = {name: fetch.cached(name, cache) for name in MODELS}
    if as_json:
        known = [
            {
                "name": m.name,
                "kind": m.kind,
                "bytes": m.bytes,
                "licence": m.licence,
                "about": m.about,
                "path": str(here[m.name] or "") or None,
            }
            for m in MODELS.values()
        ]
        say_json(known)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "kind", "size", "here", "licence"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    table.add_column("about", ratio=1)
    for model in MODELS.values():
        mark = Text("yes", style="green") if here[model.name] else Text("no", style="dim")
        table.add_row(Text(model.name, style="bold"), model.kind, f"{model.bytes / 1e6:,.0f} MB", mark, model.licence, model.about)
    open_console().print(table)


@app.command()
def pull(name: RegisteredModel, cache: Cache = None) -> None:
    """Fetch a model into the cache, unless it is there, and verify it."""
    fetch.named(name)
    typer.echo(fetch.locate(name, cache=cache))
    if not fetch.verify(name, cache):
        raise ModelUnavailable(
            f"{name} is here, but not with the bytes that were published: threadkeep models remove {name}, and pull it again"
        )


@app.command()
def path(name: RegisteredModel, cache: Cache = None) -> None:
    """Say where a model is; fetches nothing."""
    found = fetch.cached(name, cache)
    if found is None:
        raise NotFound(f"{name} is not in {cache or fetch.default_cache()}: threadkeep models pull {name}")
    typer.echo(found)


@app.command()
def remove(name: RegisteredModel, cache: Cache = None) -> None:
    """Delete a model from the cache."""
    freed = fetch.remove(name, cache)
    typer.echo(f"{freed / 1e6:,.0f} MB freed" if freed else f"{name} was not here")
