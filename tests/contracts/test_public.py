"""What `import undrift` and `undrift --help` load, and that every public name is there."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import xarray as xr

import undrift
from undrift.data.examples import north_america

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


def test_the_python_verbs_have_the_names_of_the_options():
    import inspect

    from undrift.cli.sample import sample
    from undrift.cli.train import train

    spoken = {"set_": "set"}
    of_train = {spoken.get(name, name) for name in inspect.signature(train).parameters} - {"json"}
    assert of_train <= set(inspect.signature(undrift.fit).parameters)
    of_sample = set(inspect.signature(sample).parameters) - {"run", "json", "device", "no_verify"}
    assert of_sample <= set(inspect.signature(undrift.FieldModel.sample).parameters)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, and the sources that it was built from."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(ROOT / "src" / "undrift", tree / "src" / "undrift", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("undrift-*.whl")
    return built, tree


def test_the_wheel_holds_what_the_package_needs(wheel):
    built, tree = wheel
    with zipfile.ZipFile(built) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    sources = {str(path.relative_to(tree / "src")) for path in (tree / "src" / "undrift").rglob("*.py")}
    assert sources <= set(sizes)
    assert "undrift/py.typed" in sizes
    assert {"undrift/report/page.html", "undrift/report/page.css"} <= set(sizes)
    data = {name: size for name, size in sizes.items() if name.startswith("undrift/data/") and name.endswith(".nc")}
    assert data and sum(data.values()) <= 1_500_000
    assert any(name.endswith("licenses/NOTICE") for name in sizes)
    assert any(name.endswith("licenses/LICENSE") for name in sizes)


def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    """From its files alone: nothing of the sources' folder is on the path, and nothing is written beside the package."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel[0]) as archive:
        archive.extractall(site)
    before = sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts)
    code = (
        f"import undrift, sys; assert undrift.__file__.startswith({str(site)!r}); from undrift.cli.main import main; "
    )
    words = ["demo", "--budget", "2s", "--realizations", "4", "--out", "shown", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main({words!r}))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["report"] == str(Path("shown", "report.html"))
    page = (tmp_path / "shown" / "report.html").read_text("utf-8")
    assert page.count("<img ") > 30 and "Fine maps from coarse ones" in page and "Maps given a year" in page
    with xr.open_dataset(tmp_path / "shown" / "downscale.nc") as drawn:
        scores = undrift.evaluate(drawn.load(), north_america(), bootstrap=0)
    (crps,) = [row["value"] for row in told["scores"]["downscale"] if row["score"] == "crps"]
    assert crps == pytest.approx(float(scores.crps.item()), rel=1e-6)
    assert {row["variable"] for row in told["scores"]["emulate"] if row["score"] == "crps"} == {"tas"}
    assert sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts) == before
