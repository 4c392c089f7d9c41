"""Each row of the table of systems names what there is: a class by its place, and a command that can be typed."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from undrift.cli.main import VERBS

PAGE = (Path(__file__).parents[2] / "docs" / "windows.md").read_text()
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ") and "](http" in line]


def commands(text):
    return re.findall(r"undrift [a-z]+ [^`\n#]*", text)


@pytest.mark.parametrize("row", ROWS, ids=[row[0].split("(")[0].strip() for row in ROWS])
def test_a_row_names_a_class(row):
    places = re.findall(r"`([\w.]+)`", row[1])
    assert places
    for place in places:
        module, _, name = place.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(f"undrift.{module}"), name))


def test_the_table_has_the_systems():
    assert len(ROWS) >= 14
    named = " ".join(row[0] for row in ROWS)
    systems = (
        "MCVD",
        "Video Diffusion",
        "climate simulations",
        "FluidDiff",
        "GenCast",
        "Nowcasting",
        "super-resolution",
        "Translation",
    )
    guides = ("posterior sampling", "Pseudoinverse", "Moment matching", "Reconstruction guidance", "Replacement")
    for system in (*systems, "enrichment", *guides, "Classifier-free guidance", "Classifier guidance"):
        assert system in named


@pytest.mark.parametrize("command", commands(PAGE))
def test_a_command_has_the_verb_and_the_options_it_is_typed_with(command):
    _, verb, *words = shlex.split(command)
    assert verb in VERBS
    known = inspect.signature(getattr(importlib.import_module(f"undrift.cli.{verb}"), verb)).parameters
    for word in words:
        if word.startswith("--"):
            assert word[2:].replace("-", "_") in {name.rstrip("_") for name in known}, word
