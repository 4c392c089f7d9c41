"""No implementation goes without its contract, and no public class or function of the theory without a measurement.

A class that keeps the shape of a noun stands in the list of that noun; whatever is public in a room of the theory has a
line in ``docs/verification.md``, which ``make verify`` writes.
"""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import implementations as listed
import pytest

import undrift
from undrift.denoise.denoiser import Denoiser
from undrift.denoise.targets import Target
from undrift.guide import Constraint
from undrift.guide.operators import Operator
from undrift.nets import MLP
from undrift.objective import Times, Weight
from undrift.process import Coupling, Noise, Process
from undrift.solve.frames import Frame
from undrift.solve.grid import TimeGrid
from undrift.solve.solver import Solver

SOURCE = Path(undrift.__file__).parent


def modules(room: str) -> list[ModuleType]:
    """The room itself and every module in it."""
    names = [path.stem for path in sorted((SOURCE / room).glob("*.py"))]
    return [importlib.import_module(f"undrift.{room}" + ("" if n == "__init__" else f".{n}")) for n in names]


def classes(room: str) -> set[type]:
    """Every public class that is defined in a room, protocols and the abstract left out."""
    found = set()
    for module in modules(room):
        found |= {
            value
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
        }
    return {c for c in found if not inspect.isabstract(c) and not getattr(c, "_is_protocol", False)}


def called_with(cls: type, *names: str) -> bool:
    """Whether instances are called with arguments that begin with these names."""
    call = cls.__dict__.get("__call__")
    return call is not None and list(inspect.signature(call).parameters)[1 : 1 + len(names)] == list(names)


NOUNS = {
    "process": ("process", lambda c: issubclass(c, Process), listed.PROCESSES),
    "law of noise": ("process", lambda c: issubclass(c, Noise), listed.NOISES),
    "coupling": ("process", lambda c: issubclass(c, Coupling), listed.COUPLINGS),
    "target": ("denoise", lambda c: issubclass(c, Target), listed.TARGETS),
    "solver": ("solve", lambda c: issubclass(c, Solver), listed.SOLVERS),
    "frame": ("solve", lambda c: issubclass(c, Frame), listed.FRAMES),
    "time grid": ("solve", lambda c: issubclass(c, TimeGrid), {**listed.GRIDS, "nodes": listed.NODES}),
    "guess": ("denoise", lambda c: hasattr(c, "posterior_variance"), listed.guesses()),
    "denoiser": (
        "denoise",
        lambda c: issubclass(c, Denoiser),
        {k: case.denoiser for k, case in listed.denoisers().items()},
    ),
    "guided denoiser": (
        "guide",
        lambda c: issubclass(c, Denoiser),
        {k: case.denoiser for k, case in (listed.guides() | listed.guided()).items()},
    ),
    "operator": ("guide", lambda c: issubclass(c, Operator), listed.OPERATORS),
    "constraint": ("guide", lambda c: issubclass(c, Constraint), listed.constraints()),
    "objective": (
        "objective",
        lambda c: called_with(c, "batch", "net", "key") or called_with(c, "batch", "model", "key"),
        {name: case.loss for name, case in listed.objectives().items()},
    ),
    "law of times": ("objective", lambda c: issubclass(c, Times), listed.TIMES),
    "weight": ("objective", lambda c: issubclass(c, Weight), listed.WEIGHTS),
    "net": ("nets", lambda c: called_with(c, "x", "t") or _is_net(c), {"U-Net": listed.net(), "perceptron": MLP(2)}),
    "task": ("tasks", lambda c: hasattr(c, "pair"), listed.TASKS),
}


def _is_net(cls: type) -> bool:
    forward = cls.__dict__.get("forward")
    return forward is not None and list(inspect.signature(forward).parameters)[1:4] == ["x", "t", "vector"]


@pytest.mark.parametrize("noun", NOUNS)
def test_every_implementation_is_listed(noun):
    room, keeps, examples = NOUNS[noun]
    found = {c for c in classes(room) if keeps(c)}
    assert found, f"the rule that finds a {noun} finds none"
    assert found == {type(example) for example in examples.values()}


def test_every_task_of_the_command_line_is_listed():
    from undrift.tasks import TASKS

    assert set(TASKS.values()) == {type(task) for task in listed.TASKS.values()}


PAGE = Path(__file__).parents[2] / "docs" / "verification.md"
THEORY = ("process", "denoise", "objective", "solve", "guide", "infer")
WITHOUT_A_LINE = {
    # abstract: each implementation has lines of its own
    "Process", "VariancePreserving", "Noise", "Coupling", "Denoiser", "Target", "Times", "Weight", "Solver", "Multistep",
    "Frame", "TimeGrid", "Control", "ComponentDenoiser", "Guide", "Operator", "Constraint",
    # what a method returns or is called with: measured where it comes from
    "Transition", "Posterior", "Components", "Terms", "State", "Draws", "Draw", "Density", "Player", "players", "after_step",
    "Linearised",
}  # fmt: skip


def lines() -> list[tuple[str, str, bool]]:
    """(room, method, whether it passes) of every line of the page; a name stands for the lines below it too."""
    room, method, found = "", "", []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            room = line[3:]
        elif room and line.startswith("|") and not line.startswith(("| method", "|---")):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            method = cells[0].strip("`") or method
            found.append((room, method, cells[-1] == "yes"))
    return found


@pytest.mark.parametrize("room", THEORY)
def test_every_public_name_of_the_theory_is_measured(room):
    public = {(name, getattr(module, name)) for module in modules(room) for name in getattr(module, "__all__", ())}
    public = {name for name, value in public if isinstance(value, type) or inspect.isfunction(value)}
    seen = {method for at, method, _ in lines() if at == room}
    missing = public - seen - WITHOUT_A_LINE
    assert not missing, f"no line in {PAGE.name} for {', '.join(sorted(missing))}; give them one, then type make verify"
    assert seen <= public, f"no longer public: {', '.join(sorted(seen - public))}; type make verify"


def test_no_line_of_the_verification_fails():
    found = lines()
    assert len(found) > 200
    assert all(passes for *_, passes in found), [method for _, method, passes in found if not passes]
