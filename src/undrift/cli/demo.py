"""``undrift demo``."""

from __future__ import annotations

__all__ = ["demo"]

import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.cli.options import Device, DryRun, Flag, Json, Seed, refuse_existing, set_threads
from undrift.cli.output import emit_json, facts, note, plain, say, table
from undrift.cli.stopping import stopped_saying
from undrift.errors import Interrupted, UsageError
from undrift.progress import Tick, clock, track

if TYPE_CHECKING:
    import xarray as xr

    from undrift.model import FieldModel
    from undrift.report.page import Section

HOLDOUT = "year=2070/2099,scenario=E1"

# Shares of the budget. The regression twin of the downscaling model, one of its baselines, takes as long as the model.
DOWNSCALE, TWIN, EMULATE = 0.42, 0.42, 0.16

# Seconds on two cores for what the budget does not bound; they only serve the estimate of the time left.
PREPARE, DRAW, SCORE, WRITE = 8.0, 12.0, 7.0, 5.0


@dataclass(frozen=True)
class _Typed:
    """What the user chose."""

    budget: str
    out: str
    realizations: int
    seed: int
    device: str

    def options(self) -> list[str]:
        """The words that choose the same draws, where they are not the usual ones."""
        return [*(["--seed", str(self.seed)] if self.seed else []), *_unless("--device", self.device, "auto")]


def _unless(option: str, value: str, usual: str) -> list[str]:
    return [] if value == usual else [option, value]


@dataclass
class _Job:
    """One of the two models of the demo."""

    name: str
    title: str
    arguments: dict[str, Any]
    share: float
    model: FieldModel | None = None
    scores: xr.Dataset | None = None
    section: Section | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def demo(
    *,
    budget: str = "3m",
    out: str = "demo",
    realizations: int = 16,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Flag = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train, draw, score and report on the embedded climate data, in minutes.

    Example: undrift demo --budget 20s --out quick

    Annual temperature over North America by the climate model HadCM3: fine maps
    from coarse ones (x4), and maps given only a year and a scenario. Tested on
    scenario E1, 2070-2099, which training does not see.

    Args:
        budget: Wall clock of all training together, as 20s or 3m; the rest takes about a minute more.
        out: Directory to write: two runs, their ensembles and report.html.
        realizations: How many maps are drawn for each test year.
        overwrite: Replace what an earlier demo wrote to OUT.
    """
    from undrift.config import parse_duration

    seconds = parse_duration(budget)
    if realizations < 2:
        raise UsageError(f"got --realizations {realizations}; a spread needs at least 2")
    folder = Path(out)
    refuse_existing(out, overwrite or dry_run)
    jobs = [
        _Job("downscale", "Fine maps from coarse ones (x4)", {"factor": 4, "baselines": True}, DOWNSCALE),
        _Job("emulate", "Maps given a year and a scenario", {"covariates": ["year", "scenario"]}, EMULATE),
    ]
    began = time.monotonic()
    stages = _Stages(_planned(seconds, realizations))
    if not dry_run:
        note(f"the demo takes about {clock(sum(stages.planned.values()))} (minutes:seconds) on two cores")
    with _stopped(out), stages.running():
        set_threads()
        # By its path, so that the runs of the demo can be reported on later like any other.
        data = str(resources.files("undrift.data") / "north_america.nc")
        plans = {job.name: _train(job, data, folder, seconds, seed, device, dry_run, stages) for job in jobs}
        if dry_run:
            plans["about"] = {"seconds": round(sum(stages.planned.values())), "written": "nothing (--dry-run)"}
            emit_json(plans) if json else facts(plans)
            return 0
        for job in jobs:
            _draw_and_score(job, folder, data, _Typed(budget, out, realizations, seed, device), stages)
        from undrift.report.page import write_page

        with stages.stage("write"):
            sections = [job.section for job in jobs if job.section is not None]
            page = write_page(folder / "report.html", sections, title="undrift demo", overwrite=True)
    _show(jobs, page, time.monotonic() - began, json)
    return 0


@contextmanager
def _stopped(out: str) -> Iterator[None]:
    """A stop is told in the words of the demo: a training in it would speak of its own directory and of --resume."""
    advice = f"{out} is incomplete; type the same command with --overwrite"
    try:
        with stopped_saying(advice):
            yield
    except Interrupted as stopped:
        raise Interrupted(f"{str(stopped).partition(';')[0]}; {advice}") from None


def _planned(seconds: float, realizations: int) -> dict[str, float]:
    """Seconds that each stage will take, roughly."""
    draw = DRAW * realizations / 16
    return {
        "train downscale": PREPARE + (DOWNSCALE + TWIN) * seconds,
        "train emulate": PREPARE + EMULATE * seconds,
        "draw downscale": draw,
        "score downscale": SCORE,
        "draw emulate": draw,
        "score emulate": SCORE,
        "write": WRITE,
    }


class _Stages:
    """The demo as a whole on one bar: its time left is that of the plan, also while a stage is silent."""

    def __init__(self, planned: dict[str, float]) -> None:
        self.planned = planned
        self._past, self._end = 0.0, 0.0
        self._began = time.monotonic()
        self._name = "starting"
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with track("demo", total=sum(self.planned.values())) as tick:
            thread = threading.Thread(target=self._watch, args=(tick,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()

    def _watch(self, tick: Tick) -> None:
        while not self._over.wait(1.0):
            # A stage that takes longer than planned waits at its end; one that was shorter jumps there.
            tick(min(self._past + time.monotonic() - self._began, max(self._end - 0.5, 0.1)), self._name)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._name, self._began = name, time.monotonic()
        self._end = self._past + self.planned[name]
        yield
        self._past = self._end


def _train(
    job: _Job, data: str, folder: Path, seconds: float, seed: int, device: str, dry_run: bool, stages: _Stages
) -> dict[str, Any]:
    from undrift.model import fit

    with stages.stage(f"train {job.name}"):
        result = fit(
            data,
            task=job.name,
            holdout=HOLDOUT,
            budget=job.share * seconds,
            seed=seed,
            device=device,
            out=folder / job.name,
            overwrite=True,
            dry_run=dry_run,
            **job.arguments,
        )
    if isinstance(result, dict):
        return result
    job.model = result
    return result.describe()


def _draw_and_score(job: _Job, folder: Path, data: str, typed: _Typed, stages: _Stages) -> None:
    from undrift.cli.report import section_of
    from undrift.cli.runs import score, score_rows
    from undrift.data.ensemble import open_ensemble

    model = job.model
    assert model is not None
    path = folder / f"{job.name}.nc"
    with stages.stage(f"draw {job.name}"):
        model.sample(holdout=True, realizations=typed.realizations, seed=typed.seed, out=path, overwrite=True)
    with stages.stage(f"score {job.name}"):
        with open_ensemble(path) as opened:
            ensemble = opened.load()
        truth = model.holdout_truth()
        job.scores = score(ensemble, truth, model)
        commands = _commands(folder / job.name, path, data, typed)
        given = model.holdout_given() if job.name == "downscale" else None
        job.section = section_of(model, ensemble, truth, given, job.scores, title=job.title, commands=commands)
        job.rows = score_rows(job.scores)


def _commands(run: Path, ensemble: Path, data: str, typed: _Typed) -> list[str]:
    """The lines that make the demo again, and those that make this part of its page from the run."""
    count, chosen = str(typed.realizations), typed.options()
    lines = [
        [
            "demo",
            "--budget",
            typed.budget,
            *_unless("--realizations", count, "16"),
            *typed.options(),
            "--out",
            typed.out,
        ],
        ["report", str(run), "--realizations", count, *chosen, "--out", f"{run}.html"],
        ["evaluate", str(ensemble), "--truth", data, "--run", str(run)],
    ]
    return [shlex.join(["undrift", *line]) for line in lines]


def _show(jobs: list[_Job], page: Path, seconds: float, json: bool) -> None:
    from undrift.verify import to_table

    if json:
        scores = {job.name: plain(to_table(job.scores)) for job in jobs if job.scores is not None}
        emit_json({"report": str(page), "seconds": round(seconds, 1), "scores": scores})
        return
    for job in jobs:
        table(job.rows, title=job.title)
        for line in job.section.verdict if job.section is not None else ():
            say(f"  {line}")
        say()
    say(f"done in {clock(seconds)}; the report: {page}")
