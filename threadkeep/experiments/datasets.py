"""Where in a folder of datasets each task's files are: under the names they were published by."""

from dataclasses import dataclass
from pathlib import Path

from threadkeep.experiments.base import DatasetError


@dataclass(frozen=True, slots=True)
class Place:
    """Files that a task reads, as a pattern below the folder."""

    pattern: str
    folder: bool = False
    """Whether the task takes the folder that the file is in."""


PLACES = {
    "longmemeval": (
        Place("longmemeval_s*.json"),
        Place("longmemeval*/longmemeval_s*.json"),
        Place("longmemeval*/questions.json", folder=True),
        Place("longmemeval_oracle*.json"),
        Place("longmemeval*/longmemeval_oracle*.json"),
    ),
    "locomo": (Place("locomo*.json"), Place("locomo*/locomo*.json"), Place("locomo*/data/locomo*.json")),
    "realmem": (Place("realmem*/*_dialogues_256k.json", folder=True),),
    "bfcl_memory": (Place("BFCL_v4_memory.json", folder=True), Place("bfcl*/BFCL_v4_memory.json", folder=True)),
}
"""By task, the most telling first. Tasks that read no published files stand not here."""


def find(task: str, data: Path) -> Path | None:
    """A task's path in a folder of datasets; None where it reads none.

    Raises:
        DatasetError: nothing there has such a name, or several have.
    """
    if task not in PLACES:
        return None
    if not data.is_dir():
        raise DatasetError(data, f"task {task}", "is no folder of datasets")
    for place in PLACES[task]:
        found = sorted({path.parent if place.folder else path for path in data.glob(place.pattern)})
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(data)) for path in found)
            raise DatasetError(data, f"task {task}", f"could read {names}: name one with --task {task}=PATH")
        if found:
            return found[0]
    patterns = ", ".join(place.pattern for place in PLACES[task])
    raise DatasetError(data, f"task {task}", f"found none of {patterns}: name the path with --task {task}=PATH")
