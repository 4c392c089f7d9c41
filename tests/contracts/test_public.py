"""What `import undrift` and `undrift --help` load, and that every public name is there."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import undrift

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "xarray", "pandas", "matplotlib", "scipy", "dask", "zarr", "netCDF4"}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    tail = "import json, sys; sys.stderr.write(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


def test_import_undrift_is_light():
    loaded = modules_after("import undrift; undrift.__version__; undrift.UsageError; dir(undrift)")
    assert not loaded & (HEAVY | {"pydantic", "cyclopts", "rich"})


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["sample", "--help"], ["demo", "--help"], ["trian"]]
)
def test_help_is_light(words):
    loaded = modules_after(f"from undrift.cli.main import main; main({words!r})")
    assert not loaded & (HEAVY | {"pydantic"})


@pytest.mark.parametrize("name", undrift.__all__)
def test_every_public_name_resolves(name):
    value = getattr(undrift, name)
    assert name in dir(undrift)
    if name == "__version__":
        assert value == re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
        return
    assert value.__name__ == name and value.__module__.startswith("undrift.")
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert len(value.__doc__.split()) > 3, f"undrift.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        undrift.fitt  # noqa: B018
    assert not hasattr(undrift, "sampel")


def test_a_misspelt_option_names_the_nearest():
    with pytest.raises(TypeError, match=r"^fit has no option 'bugdet'; did you mean 'budget'\?$"):
        undrift.fit("data.nc", bugdet="2min")
    with pytest.raises(TypeError, match=r"^sample has no option 'realisations'; did you mean 'realizations'\?$"):
        undrift.FieldModel.sample(None, realisations=3)
    with pytest.raises(TypeError, match=r"^load has no option 'x'; the options are run, verify, device, data, given$"):
        undrift.load("run", x=1)


def test_the_python_verbs_have_the_names_of_the_options():
    import inspect

    from undrift.cli.sample import sample
    from undrift.cli.train import train

    spoken = {"set_": "set"}
    of_train = {spoken.get(name, name) for name in inspect.signature(train).parameters} - {"json"}
    assert of_train <= set(inspect.signature(undrift.fit).parameters)
    of_sample = set(inspect.signature(sample).parameters) - {"run", "json", "device", "no_verify"}
    assert of_sample <= set(inspect.signature(undrift.FieldModel.sample).parameters)
