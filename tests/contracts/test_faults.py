"""The faults of ``make mutate`` fit the sources, and every file of the theory has one."""

from pathlib import Path

import pytest

import undrift
from mutate import FAULTS

SOURCE, TESTS = Path(undrift.__file__).parent, Path(__file__).parents[1]
THEORY = ("process", "denoise", "objective", "solve", "guide", "infer")
WITHOUT_FORMULAS = {"solve/solver.py"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.path}: {fault.right}")
def test_a_fault_can_be_made(fault):
    text = (SOURCE / fault.path).read_text(encoding="utf-8")
    assert text.count(fault.right) == 1, f"{fault.path} holds {fault.right!r} {text.count(fault.right)} times"
    compile(text.replace(fault.right, fault.wrong), fault.path, "exec")
    name, _, test = fault.tests.partition("::")
    assert f"def {test}" in (TESTS / name).read_text(encoding="utf-8")


def test_every_file_of_the_theory_has_a_fault():
    faulty = [fault.path for fault in FAULTS if fault.path.startswith(THEORY)]
    assert len(faulty) >= 60
    files = {f"{room}/{path.name}" for room in THEORY for path in (SOURCE / room).glob("*.py")}
    missing = {path for path in files if not path.endswith("__init__.py")} - set(faulty) - WITHOUT_FORMULAS
    assert not missing, f"no fault for {', '.join(sorted(missing))}; give tests/mutate.py one"
