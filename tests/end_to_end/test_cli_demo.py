"""The wheel and the demo that runs from it: one demo, looked at from all sides."""

import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import undrift
from undrift.cli.demo import _Job, _show, _Stages
from undrift.cli.main import main
from undrift.data.examples import north_america
from undrift.report import Section

ROOT = Path(__file__).parents[2]


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


@pytest.fixture(scope="module")
def demo(wheel, tmp_path_factory):
    """A demo from the files of the wheel alone: nothing of the sources' folder is on the path."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("shown") / "my demo"
    with zipfile.ZipFile(wheel[0]) as archive:
        archive.extractall(site)
    before = sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts)
    code = (
        f"import undrift, sys; assert undrift.__file__.startswith({str(site)!r}); from undrift import progress; "
        "from undrift.cli.main import main; progress.SECONDS_BETWEEN_LINES = 1.0; "
    )
    words = ["demo", "--budget", "2s", "--realizations", "2", "--seed", "3", "--device", "cpu", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main({[*words, '--json']!r}))"],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts) == before
    page = (folder / "report.html").read_text("utf-8")
    return SimpleNamespace(folder=folder, words=words, told=json.loads(done.stdout), said=done.stderr, page=page)


def test_the_demo_runs_from_the_wheel(demo):
    assert demo.told["report"] == str(demo.folder / "report.html")
    assert demo.page.count("<img ") > 30 and "Open Government Licence" in demo.page
    assert "Fine maps from coarse ones" in demo.page and "Maps given a year" in demo.page
    with xr.open_dataset(demo.folder / "downscale.nc") as drawn:
        assert list(drawn.year.values) == list(range(2070, 2100))
        assert [str(s) for s in np.atleast_1d(drawn.scenario.values)] == ["E1"]
        scores = undrift.evaluate(drawn.load(), north_america(), bootstrap=0)
    (crps,) = [row["value"] for row in demo.told["scores"]["downscale"] if row["score"] == "crps"]
    assert crps == pytest.approx(float(scores.crps.item()), rel=1e-6)
    assert {row["variable"] for row in demo.told["scores"]["emulate"] if row["score"] == "crps"} == {"tas"}
    lines = [line for line in demo.said.splitlines() if line.startswith("undrift: demo")]
    assert lines and all(re.match(r"undrift: demo \d+ %, \d+:\d\d left, ", line) for line in lines)


def test_the_models_of_the_demo_are_runs_like_any_other(demo):
    for name in ("downscale", "emulate"):
        told = undrift.load(demo.folder / name).describe()
        assert told["task"] == name and told["data"]["holdout"] == "year=2070/2099,scenario=E1"
        assert told["training"]["samples"]["holdout"] == 30 and told["training"]["seconds"] < 20


def test_the_lines_on_the_page_of_the_demo_give_its_scores_again(demo, capsys, no_drawing):
    lines = re.findall(r"undrift (?:demo|report|evaluate) [^<\n]*", demo.page)
    lines = [shlex.split(html.unescape(line)) for line in lines]
    assert lines[0] == ["undrift", *demo.words]
    expected = {(row["score"], row["baseline"]): row["value"] for row in demo.told["scores"]["downscale"]}
    for verb in ("report", "evaluate"):
        line = next(line for line in lines if line[1] == verb)
        assert main([*line[1:], "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["scores"]
        values = {(row["score"], row["baseline"]): row["value"] for row in told}
        for key in (("crps", ""), ("rmse", ""), ("spread_skill", ""), ("skill", "climatology")):
            assert values[key] == pytest.approx(expected[key], rel=1e-6), (verb, key)


def test_the_demo_ends_with_its_scores_its_verdict_and_the_page(capsys):
    row = {"variable": "tas (K)", "method": "this model", "CRPS": 0.5, "spread/skill": 1.25}
    job = _Job("downscale", "Fine maps", {}, 1.0, section=Section("", verdict=["good: tas"]), rows=[row])
    _show([job], Path("my demo", "report.html"), 61.0, json=False)
    title, *lines = capsys.readouterr().out.strip().splitlines()
    assert title.strip() == "Fine maps" and lines[-3].strip() == "good: tas"
    assert all(word in "".join(lines) for word in ("CRPS", "spread/skill", "this model", "0.5", "1.25"))
    assert lines[-1] == f"done in 1:01; the report: {Path('my demo', 'report.html')}"


def test_the_time_left_of_the_demo_learns_from_the_stages_that_are_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("undrift.cli.demo.time.monotonic", lambda: now[0])
    planned = {"train one": (60.0, 10.0), "draw": (0.0, 20.0), "write": (0.0, 5.0)}
    stages = _Stages(planned)
    assert stages.total == 95.0 and stages.state() == (95.0, "starting")
    with stages.stage("train one"):
        now[0] = 30.0
        assert stages.state() == (65.0, "train one")
        now[0] = 80.0
        assert stages.state() == (25.0, "train one (longer than expected)")
    with stages.stage("draw"):  # what the budget of 60 s does not bound took 20 s, twice as long as planned
        assert stages.state() == (50.0, "draw")
        now[0] = 110.0
        assert stages.state() == (20.0, "draw")


@pytest.mark.parametrize("where", ["undrift.train.loop.take_step", "undrift.model.training.calibrate"])
def test_a_demo_that_is_stopped_says_how_to_begin_anew(tmp_path, capsys, monkeypatch, where):
    module, _, name = where.rpartition(".")
    work = getattr(sys.modules[module], name)

    def stopped(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return work(*args, **options)

    monkeypatch.setattr(where, stopped)
    assert main(["demo", "--budget", "1s", "--device", "cpu", "--out", str(tmp_path / "demo")]) == 75
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("undrift: stopped by SIGTERM") and "--resume" not in last
    assert last.endswith(f"; {tmp_path / 'demo'} is incomplete; type the same command with --overwrite")
