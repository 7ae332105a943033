"""What a session said about a text: the ranking that recall uses, each entry with what its score is made of."""

from dataclasses import dataclass

from threadkeep.memory.analysis import terms
from threadkeep.memory.errors import InvalidSetting
from threadkeep.memory.history import Entry, moment
from threadkeep.memory.index import Scope
from threadkeep.memory.message import Message
from threadkeep.memory.setup import Setup
from threadkeep.stores.rows import Prepared, encode, now_us
from threadkeep.stores.sql import unknown_session


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a search found. The four parts add up to the score."""

    session: str
    entry: Entry
    score: float
    words: float
    """What the entry's own words add."""
    meaning: float
    """What its embedding adds; 0 without an embedder."""
    neighbours: float
    """What the entries beside it add."""
    date: float
    """What it adds that it was said at a time that the text names."""


def search(setup: Setup, owner: str, name: str, text: str, k: int, scope: Scope) -> list[Found]:
    """The best `k` entries for a text, the best first; entries that share nothing with it are not among them.

    Raises:
        InvalidSetting: an argument out of range.
        NotFound: there is no such session.
    """
    if not isinstance(text, str):
        raise InvalidSetting(f"search({text!r:.80}): a text")
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InvalidSetting(f"search(k={k!r:.80}): a number of entries from 1")
    if scope not in ("session", "owner"):
        raise InvalidSetting(f"search(scope={scope!r:.80}): 'session' or 'owner'")
    message = Message.user(text)
    asked = setup.embed(Prepared(message, encode(message.to_dict()), 0, 0, True, terms(text)))  # not counted: that would load a model
    from threadkeep.strategies.ranking import rank  # numpy is slow to import

    with setup.store.history(owner, name, asked, model=setup.model) as (history, session, _):
        if session is None:
            raise unknown_session(name)
        index = history.index(scope)
        hits = rank(index, text, moment(now_us())).best(k)
        entries = index.lookup.entries([hit.row for hit in hits])
        return [
            Found(index.sessions[int(index.session[hit.row])], entry, hit.score, hit.lexical, hit.dense, hit.lift, hit.date)
            for hit, entry in zip(hits, entries, strict=True)
        ]
