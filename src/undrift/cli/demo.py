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
        note(f"the demo takes about {clock(stages.total)} (minutes:seconds) on two cores")
    with _stopped(out), stages.running():
        set_threads()
        # By its path, so that the runs of the demo can be reported on later like any other.
        data = str(resources.files("undrift.data") / "north_america.nc")
        plans = {job.name: _train(job, data, folder, seconds, seed, device, dry_run, stages) for job in jobs}
        if dry_run:
            plans["about"] = {"seconds": round(stages.total), "written": "nothing (--dry-run)"}
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

    def advice() -> str:
        there = Path(out).exists()
        return (
            f"{out} is incomplete; type the same command with --overwrite" if there else "type the same command again"
        )

    try:
        with stopped_saying(advice):
            yield
    except Interrupted as stopped:
        raise Interrupted(f"{str(stopped).partition(';')[0]}; {advice()}") from None


def _planned(seconds: float, realizations: int) -> dict[str, tuple[float, float]]:
    """Seconds that each stage will take: of the budget, and roughly of what it does not bound."""
    draw = DRAW * realizations / 16
    return {
        "train downscale": ((DOWNSCALE + TWIN) * seconds, PREPARE),
        "train emulate": (EMULATE * seconds, PREPARE),
        "draw downscale": (0.0, draw),
        "score downscale": (0.0, SCORE),
        "draw emulate": (0.0, draw),
        "score emulate": (0.0, SCORE),
        "write": (0.0, WRITE),
    }


class _Stages:
    """The demo as a whole on one bar with the time left, also while a stage is silent.

    What the budget does not bound takes longer on a slower machine: the stages that are over tell how much.
    """

    def __init__(self, planned: dict[str, tuple[float, float]]) -> None:
        self.planned = planned
        self.total = sum(map(sum, planned.values()))
        self._ahead = list(planned)
        self._now = ("starting", time.monotonic())
        self._spent = self._meant = 0.0  # seconds of what the budget does not bound, in stages that are over
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with track("demo", total=1.0) as tick:
            thread = threading.Thread(target=self._watch, args=(tick, time.monotonic()), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()

    def _watch(self, tick: Tick, start: float) -> None:
        over = False
        while not over:
            left, words = self.state()
            gone = time.monotonic() - start
            tick(gone / (gone + left + 1e-9), words, left)
            over = self._over.wait(1.0)

    def state(self) -> tuple[float, str]:
        """Seconds left of the whole, and the stage in words."""
        name, began = self._now
        rest = self._expected(name) - (time.monotonic() - began)
        words = name if rest >= 0 or name not in self.planned else f"{name} (longer than expected)"
        return max(0.0, rest) + sum(map(self._expected, list(self._ahead))), words

    def _expected(self, name: str) -> float:
        budget, rest = self.planned.get(name, (0.0, 0.0))
        return budget + rest * (self._spent / self._meant if self._meant else 1.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self._now = (name, began)
        self._ahead.remove(name)
        yield
        budget, rest = self.planned[name]
        self._spent += max(0.0, time.monotonic() - began - budget)
        self._meant += rest


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
    from undrift.model import FieldModel

    assert isinstance(result, FieldModel)
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
