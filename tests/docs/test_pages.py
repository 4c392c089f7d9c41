"""The reader's guide: its code runs and prints what it shows, its tables say what the classes are."""

import importlib
import inspect
import io
import pkgutil
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from undrift.solve.solver import Solver

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NEEDS = re.compile(r"^<!-- needs (\w+) -->\n(?=```python$)", re.M)  # a block that runs where this module is installed
ROOMS = ("process", "denoise", "objective", "solve", "guide", "infer")


def two_slices(folder):
    """What the job array of the page on clusters leaves behind."""
    for first in (0, 100):
        number = np.arange(first, first + 100)
        part = xr.Dataset({"tas": ("realization", number * 1.0)}, {"realization": number})
        part.to_netcdf(folder / f"ens_{first}.nc")


PREPARED = {"cluster": two_slices}


RUNS = [(name, None) for name, text in PAGES.items() if "```python" in text]
RUNS += [(name, module) for name, text in PAGES.items() for module in sorted(set(NEEDS.findall(text)))]


@pytest.mark.parametrize(("name", "with_module"), RUNS)
def test_code_runs_and_prints_what_is_shown(name, with_module, tmp_path, monkeypatch):
    """Blocks of ``python`` in one namespace; a block of ``text`` right after one is what it prints, else nothing is.

    Blocks that need a module are left out, and run with all others where it is installed.
    """
    if with_module is not None:
        pytest.importorskip(with_module)
    monkeypatch.chdir(tmp_path)
    PREPARED.get(name, lambda folder: None)(tmp_path)
    text, names = PAGES[name], {"__name__": "__main__"}
    blocks = list(FENCE.finditer(text))
    for block, following in zip(blocks, [*blocks[1:], None]):
        needs = NEEDS.search(text[: block.start()] + "```python")
        if block[1] != "python" or (needs is not None and needs[1] != with_module):
            continue
        before = text.count("\n", 0, block.start(2))  # so that a traceback has the page's line
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * before + block[2], DOCS / f"{name}.md", "exec"), names)
        shown = following is not None and following[1] == "text" and not text[block.end() : following.start()].strip()
        assert printed.getvalue() == (following[2] if shown else "")


def public(room):
    """Every public name of a room's modules."""
    top = importlib.import_module(f"undrift.{room}")
    modules = [importlib.import_module(f"{top.__name__}.{found.name}") for found in pkgutil.iter_modules(top.__path__)]
    return {name: getattr(module, name) for module in (top, *modules) for name in getattr(module, "__all__", ())}


@pytest.mark.parametrize("room", [room for room in ROOMS if room in PAGES])
def test_the_guide_has_all_classes_of_a_room(room):
    """As code in a sentence or a table of the room's page, or of another that is no list of names."""
    text = " ".join(FENCE.sub("", PAGES[name]) for name in PAGES if name not in ("names", "verification"))
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    classes = {name for name, value in public(room).items() if isinstance(value, type)}
    assert not {name for name in classes if not re.search(rf"\b{name}\b", spans)}


def tables(text):
    """Rows of cells."""
    rows = [line.strip()[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("|- :")]


NAMES = {name: value for room in ROOMS for name, value in public(room).items()}


def test_the_table_of_solvers_says_what_they_are():
    """Order, evaluations of one step, and whether noise is added."""
    seen = set()
    for row in tables(PAGES["solve"]):
        for code in re.findall(r"`(\w+\([^`]*\))`", row[0]):
            solver = eval(code, dict(NAMES))
            if not isinstance(solver, Solver):
                continue
            seen.add(type(solver).__name__)
            assert (row[2], row[3]) == (f"{solver.order:g}", str(solver.evaluations)), code
            assert row[4] == ("yes" if solver.stochastic else "no"), code
    solvers = {n: v for n, v in public("solve").items() if isinstance(v, type) and issubclass(v, Solver)}
    assert seen == {name for name, value in solvers.items() if not inspect.isabstract(value)}


def test_every_page_is_in_the_contents():
    listed = re.findall(r"^(\w+)$", PAGES["index"], re.M)
    assert set(PAGES) == {"index", *listed}
