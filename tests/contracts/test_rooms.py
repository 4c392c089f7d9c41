"""Imports point down only: a room may use the rooms below it and nothing above."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "undrift"

# From the top down. Rooms on one line may not use each other either.
ORDER = [
    {"__main__"},
    {"cli"},
    {"model"},
    {"report"},
    {"distributions"},
    {"infer"},
    {"guide"},
    {"train"},
    {"objective"},
    {"solve"},
    {"denoise"},
    {"nets"},
    {"process"},
    {"verify"},
    {"tasks"},
    {"data"},
    {"config"},
    {"errors", "progress"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Every undrift module that a file imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import in line {node.lineno}: write the whole name"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_a_place_in_the_order():
    assert {room_of(path) for path in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_from_its_own_room_and_below(path):
    room = room_of(path)
    used = {name.split(".")[1] for name in imported_modules(path) if name.startswith("undrift.")}
    above = {other for other in used if other in LEVEL and other != room and LEVEL[other] <= LEVEL[room]}
    assert not above, f"{room} is below {sorted(above)}, and may not import from there"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in ("verify", "data")], ids=lambda p: p.name)
def test_data_and_verify_do_without_torch(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] in ("torch", "safetensors")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_module_reads_or_writes_pickles(path):
    assert not {name.split(".")[0] for name in imported_modules(path)} & {"pickle", "cloudpickle", "dill", "joblib"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "save"):
            owner = node.func.value
            assert not (isinstance(owner, ast.Name) and owner.id == "torch"), f"torch.{node.func.attr} is a pickle"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
