"""Strategies by name: `BM25Turns(neighbours=1)`, `package.module:Class(…)`, or `file.py:Class(…)`."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import threadkeep
from threadkeep import InvalidSetting, Strategy
from threadkeep.experiments import baselines, dense

_BUILT_IN: dict[str, type] = {
    name: value
    for module in (threadkeep, baselines, dense)
    for name, value in vars(module).items()
    if isinstance(value, type) and value is not Strategy and callable(getattr(value, "pick", None))
}
_FOLDED = {name.casefold(): name for name in _BUILT_IN}


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy and what it is called in reports: just as it was asked for."""

    name: str
    strategy: Strategy


def known() -> list[str]:
    """The names that need no path."""
    return sorted(_BUILT_IN)


def named(text: str) -> Named:
    """The strategy that a text names.

    Settings are keyword arguments with plain values (numbers, texts, True, False, None, lists) or built-in strategies, which may also
    stand first: `Compose(SlidingWindow(), Recall(floor=0), shares=(0.25, 0.75))`. The name of a built-in one may also be written as its
    file is: `sliding_window`.

    Raises:
        InvalidSetting: there is none of that name, or it takes no such settings; says which there are.
    """
    before, bracket, after = text.partition("(")  # a setting may hold a colon
    place, _, name = before.strip().rpartition(":")
    try:
        parsed = ast.parse((name + bracket + after).strip(), mode="eval").body
        parts, settings = _arguments(text, parsed)
    except (SyntaxError, ValueError, TypeError) as error:
        if isinstance(error, InvalidSetting):
            raise
        raise InvalidSetting(
            f"strategy {text!r}: write Name, Name(setting=value), package.module:Name(…) or file.py:Name(…) ({error})"
        ) from None
    made = _class(text, place, name)
    try:
        strategy = made(*parts, **settings)
    except InvalidSetting:
        raise
    except Exception as error:
        raise InvalidSetting(f"strategy {text!r} could not be made: {type(error).__name__}: {error}") from error
    if not isinstance(strategy, Strategy):
        raise InvalidSetting(f"strategy {text!r}: {name} has no method pick(history, budget)")
    return Named(text, strategy)


def _arguments(text: str, written: ast.expr) -> tuple[list[Strategy], dict[str, object]]:
    """What stands in the brackets: the strategies that are its parts, and its settings.

    Raises:
        ValueError: it is no name with settings.
        InvalidSetting: a part is none.
    """
    if isinstance(written, ast.Name):
        return [], {}
    if not isinstance(written, ast.Call) or not isinstance(written.func, ast.Name):
        raise ValueError("not a name with keyword settings")
    parts = [_part(text, part) for part in written.args]
    settings = {keyword.arg: _setting(text, keyword.value) for keyword in written.keywords if keyword.arg}
    if len(settings) < len(written.keywords):
        raise ValueError("** is not read")
    return parts, settings


def _setting(text: str, written: ast.expr) -> object:
    return _part(text, written) if isinstance(written, ast.Call) else ast.literal_eval(written)


def _part(text: str, written: ast.expr) -> Strategy:
    """A strategy within another, by its name."""
    if not isinstance(written, ast.Call | ast.Name):
        raise ValueError("what stands without a name is a strategy, such as SlidingWindow()")
    try:
        return named(ast.unparse(written)).strategy
    except InvalidSetting as error:
        raise InvalidSetting(f"strategy {text!r}: {error}") from None


def code_of(strategy: Strategy) -> str:
    """A digest of the file that a strategy's class stands in; empty where it stands in none."""
    try:
        return hashlib.sha256(Path(inspect.getfile(type(strategy))).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _class(text: str, place: str, name: str) -> type:
    if not place:
        name = _FOLDED.get(name.replace("_", "").casefold(), name)
        if name not in _BUILT_IN:
            raise InvalidSetting(f"there is no strategy {name!r}: there are {', '.join(known())}; or name a file: my_strategy.py:{name}")
        return _BUILT_IN[name]
    found = getattr(_module(text, place), name, None)
    if not isinstance(found, type):
        raise InvalidSetting(f"strategy {text!r}: {place} has no class {name!r}")
    return found


def _module(text: str, place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place)
        if not path.is_file():
            raise InvalidSetting(f"strategy {text!r}: there is no file {place}")
        specification = importlib.util.spec_from_file_location(f"strategy file {path.resolve()}", path)
        assert specification is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module  # dataclasses look their module up; the name hides no module that is imported
        code = compile(path.read_bytes(), path, "exec", dont_inherit=True)  # an import would miss a change within a second
        exec(code, vars(module))  # noqa: S102  # what an import does
        return module
    except InvalidSetting:
        raise
    except Exception as error:
        raise InvalidSetting(f"strategy {text!r}: {place} could not be imported: {type(error).__name__}: {error}") from error
