"""`python -m threadkeep` is the command line."""

from threadkeep.cli import app

app(prog_name="threadkeep")
