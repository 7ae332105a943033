"""What a checkout holds, what ships, and what is public."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import threadkeep

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("memory", "stores", "strategies", "threadkeep")

PUBLIC_NAMES = """
    Memory AsyncMemory Session AsyncSession Turn AsyncTurn
    Branch Message TextPart ImagePart Blob ToolCall Budget Context Decision Entry History Pick Strategy SlidingWindow Recall SQLStore
    Selective ClearToolResults Compose RollingSummary SummaryTree Summariser SummaryRequest Said ExtractiveSummariser BackendSummariser
    Backend LlamaCpp OpenAIBackend ScriptedBackend Profile Event Reply Usage TokenCounter TiktokenCounter
    Embedder SentenceTransformerEmbedder EmbedderError SummariserError Found
    Truncated InvalidReply
    Router Candidate Price NoCandidate SpendCap SpendCapReached
    ThreadkeepError InvalidMessage InvalidSetting CannotFit Conflict LeaseLost Superseded KeyReused NotFound
    StoreError StoreBusy SchemaTooOld SchemaTooNew StrategyError NoBackend BackendError ModelUnavailable MissingExtra
""".split()


def own_files(pattern: str) -> list[Path]:
    """The files of the project's own folders, each once: what only a link leads to is left out."""
    found = [(ROOT / folder, path) for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)]
    return [path for folder, path in found if "__pycache__" not in path.parts and path.resolve().is_relative_to(folder.resolve())]


def package_of(folder: Path) -> str:
    """The name that a folder of the checkout is imported by."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "threadkeep" else ("threadkeep", *parts))


def imported_by(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}}


@pytest.mark.parametrize("name", ["memory", "stores", "strategies"])
def test_the_folders_at_the_top_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "threadkeep" / name

    assert link.is_symlink(), f"{link} is no link: git config core.symlinks true && rm -rf {link} && git checkout -- {link}"
    assert link.readlink() == Path("..", name)


def test_every_folder_with_code_ships() -> None:
    assert {package_of(path.parent) for path in own_files("*.py")} == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in own_files("*.py")}

    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_every_other_file_of_a_package_ships() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    data = [path for path in own_files("*") if path.is_file() and not path.is_symlink() and path.suffix not in (".py", ".pyc")]
    unshipped = [path for path in data if not any(path.match(pattern) for pattern in patterns.get(package_of(path.parent), ()))]

    assert unshipped == []


def test_nothing_at_the_root_is_taken_for_a_package() -> None:
    assert not [name for name in ("__init__.py", "conftest.py", "setup.py") if (ROOT / name).exists()]


def test_memory_says_nothing_on_import() -> None:
    assert (ROOT / "memory" / "__init__.py").read_text() == "", "it is the lowest layer and the joining one: each imports what it needs"


def test_no_file_has_grown_past_400_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in own_files("*.py")}

    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_the_public_names_are_these() -> None:
    assert sorted(threadkeep.__all__) == sorted(PUBLIC_NAMES)


def test_all_that_is_visible_is_public() -> None:
    visible = {name for name in dir(threadkeep) if not name.startswith("_") and not isinstance(getattr(threadkeep, name), ModuleType)}

    assert visible == set(threadkeep.__all__)


def test_every_error_is_public_and_says_which_builtin_it_specialises() -> None:
    from threadkeep.memory import errors

    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ThreadkeepError)]

    assert {error.__name__ for error in raised} <= set(threadkeep.__all__)
    for error in raised:
        if error is not errors.ThreadkeepError:
            assert any(base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in error.__mro__), error


def test_whatever_is_imported_is_declared() -> None:
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra, group in project["optional-dependencies"].items() if extra != "dev" for each in group),
    ]
    declared = {re.split(r"[\[><=]", each)[0].replace("-", "_") for each in wanted}

    suites = (
        "testing.py",
        "store_contract.py",
        "blob_contract.py",
        "branch_contract.py",
        "owner_contract.py",
        "embedder_contract.py",
        "random_logs.py",
        "random_strategies.py",
    )
    for_tests = {ROOT / "threadkeep" / name for name in suites}  # who uses them has pytest

    imported = {name: path for path in own_files("*.py") if path not in for_tests for name in imported_by(path)}

    undeclared = set(imported) - declared - set(sys.stdlib_module_names) - {"threadkeep"}
    assert {name: str(imported[name].relative_to(ROOT)) for name in undeclared} == {}


def test_the_changelog_knows_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert PYPROJECT["project"]["version"] in headings


def test_the_readme_says_why_each_dependency_is_there() -> None:
    project = PYPROJECT["project"]
    extras = [wanted for extra, group in project["optional-dependencies"].items() if extra not in ("all", "dev") for wanted in group]
    names = {re.split(r"[\[><=]", wanted)[0] for wanted in [*project["dependencies"], *extras]}
    readme = (ROOT / "README.md").read_text()

    assert {name for name in names if f"| {name} |" not in readme} == set()
