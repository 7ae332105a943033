"""What a run came to: as a table for the terminal, as JSON to be run again, and as one HTML page.

Every function takes the results as the JSON object that a run makes, and checks them first.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from threadkeep.experiments.report_html import page
from threadkeep.experiments.report_shape import ResultsError, results_from
from threadkeep.experiments.report_terminal import comparison_table, table

__all__ = ["ResultsError", "comparison_table", "read_json", "table", "write_html", "write_json"]

PAIR = re.compile(r"\[\n\s+(-?[\d.e+-]+),\n\s+(-?[\d.e+-]+)\n\s+\]")
"""Two numbers that `json` spread over lines. Text holds no raw line break, so nothing within text can match."""


def write_json(results: Mapping[str, object], path: Path | str) -> None:
    """Write the results, keys sorted, so that equal runs differ only under `times`. A file is replaced at once or not at all.

    Raises:
        ResultsError: they could not be read back.
    """
    results_from(results, str(path))
    try:
        text = json.dumps(results, indent=2, sort_keys=True, allow_nan=False)
        _replace(Path(path), PAIR.sub(r"[\1, \2]", text) + "\n")
    except (TypeError, ValueError) as error:
        raise ResultsError(str(path), "", f"JSON cannot hold these results: {error}") from error


def read_json(path: Path | str) -> dict[str, object]:
    """Read what `write_json` wrote.

    Raises:
        ResultsError: the file is missing, is not JSON, or does not hold results.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise ResultsError(str(path), "", f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(str(path), "", f"is not JSON: {error}") from error
    results_from(data, str(path))
    return dict(data)


def write_html(results: Mapping[str, object], path: Path | str) -> None:
    """Write one page that needs nothing else: no network, no script.

    Raises:
        ResultsError: a field is missing or of another kind.
    """
    _replace(Path(path), page(results_from(results, str(path))))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
