"""Every statement about summaries. As in `queries`, each names its owner.

A summary stands with the branch of the entry behind its last, so that all forks which go on there share it, whichever of them made it.
Its `made_at_seq` is how long the log of the branch was that made it (`made_on`; none: the one it stands with): on that branch it counts in
turns whose user message came later. On others it counts at once: a session's branches are kept up, and answered on, one at a time.
"""

import json

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from threadkeep.memory.errors import StrategyError
from threadkeep.memory.history import Summary
from threadkeep.stores.queries import SessionRow, at
from threadkeep.stores.rows import encode
from threadkeep.stores.schema import summaries

_COLUMNS = tuple(summaries.c[name] for name in "level first_seq last_seq text tokens source made_at_seq".split())
_MADE = select(*_COLUMNS).where(
    at(summaries, "branch_id", "recipe"),
    summaries.c.last_seq <= bindparam("b_last"),
    or_(
        summaries.c.made_at_seq < bindparam("b_before"),
        func.coalesce(summaries.c.made_on, summaries.c.branch_id) != bindparam("b_maker"),
    ),
)
_LEVEL = summaries.c.level == bindparam("b_level")
_LAST_FIRST = (summaries.c.level.desc(), summaries.c.first_seq.desc())
_THERE = select(summaries.c.last_seq, summaries.c.made_on).where(at(summaries, "branch_id", "recipe", "level", "first_seq"))


def summaries_before(
    connection: Connection, session: SessionRow, recipe: str, seq: int, *, level: int | None = None, newest: int | None = None
) -> list[Summary]:
    """What was stored under a recipe while the log was shorter than `seq`, along the lineage, by level and first seq.

    With what other branches made of the entries that they share with this one. `level`: of that one alone; `newest`: the last so many.
    """
    wanted = _MADE if level is None else _MADE.where(_LEVEL)
    wanted = wanted if newest is None else wanted.order_by(*_LAST_FIRST).limit(bindparam("b_newest"))
    found: dict[tuple[int, int], Summary] = {}
    for segment in session.segments:
        values: dict[str, object] = {
            "b_owner_id": session.owner_id,
            "b_branch_id": segment.branch_id,
            "b_recipe": recipe,
            "b_last": segment.last,
            "b_before": seq,
            "b_maker": session.branch_id,
            "b_level": level,
            "b_newest": newest,
        }
        for stored_level, first, last, text, tokens, source, made_at in connection.execute(wanted, values):
            summary = Summary(stored_level, first, last, json.loads(text), tokens, json.loads(source), made_at)
            found.setdefault((stored_level, first), summary)
    places = sorted(found)
    return [found[place] for place in (places if newest is None else places[max(0, len(places) - newest) :])]


def add_summary(connection: Connection, session: SessionRow, recipe: str, summary: Summary) -> None:
    """Store a summary as made at the head; one that another branch made meanwhile stays in its place.

    Raises:
        StrategyError: one of its level begins there already.
    """
    own = session.segments[-1]
    shared = next((segment for segment in session.segments[:-1] if segment.first <= summary.last < segment.last), own)
    for segment in (shared, own):
        key: dict[str, object] = {"owner_id": session.owner_id, "branch_id": segment.branch_id, "recipe": recipe}
        key |= {"level": summary.level, "first_seq": summary.first}
        there = connection.execute(_THERE, {f"b_{name}": value for name, value in key.items()}).one_or_none()
        if there is None:
            values = {"last_seq": summary.last, "text": encode(summary.text), "tokens": summary.tokens, "source": encode(summary.source)}
            made_on = None if segment is own else session.branch_id
            connection.execute(insert(summaries), key | values | {"made_at_seq": session.head.seq, "made_on": made_on})
            return
        if segment is not own and there.last_seq <= segment.last and there.made_on != session.branch_id:
            return
    raise StrategyError(
        f"recipe {recipe!r} made a second summary of level {summary.level} from entry {summary.first}: due() gives each once"
    )
