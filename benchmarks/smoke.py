"""Smoke in FluidDiff's setting: the state after a lead time, beside a regression, persistence and a conditional GAN.

    python benchmarks/smoke.py --budget 6m --work smoke --out benchmarks/results/smoke.json

110 runs of buoyant smoke on 64 x 64 cells train and 20 others test, each with an inflow, a buoyancy, a wind and a first
state of its own (`smoke_runs.py`). The models see one frame of the smoke and the lead time. Every second frame of the
solver is known to them; lead 2.5 lies between their steps and is tested on the frames in between. undrift trains for
the budget, and its rivals on the same residuals with the same network for as many steps: as long for the regression,
about twice as long for the GAN, whose critic steps too. What is in WORK already is not trained or drawn again, and a
training that was stopped goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import undrift
from smoke_gan import GAN, fit_gan
from smoke_runs import smoke
from undrift.config import Config, parse_duration
from undrift.data.ensemble import open_ensemble
from undrift.data.open import open_fields
from undrift.distributions.regression import fit_regression
from undrift.distributions.rivals import Rivals
from undrift.guide.constraints import Bounds
from undrift.model import FieldModel
from undrift.model.files import Parts
from undrift.nets.members import member_of, number_of
from undrift.objective.denoising import Regression
from undrift.tasks.batch import Condition
from undrift.train.network import build_net
from undrift.train.prepare import prepare
from undrift.train.problem import Problem
from undrift.train.run import RunDirectory
from undrift.verify.crps import discrete_crps, fair_crps

RUNS, TEST, FRAMES, LONGEST = 130, 20, 40, 20
STARTS, LEADS, REALIZATIONS = (0.0, 10.0), (2.5, 5.0, 10.0, 20.0), 5
DENSEST = 4.0  # above all that the record of training holds; draws of all models are within
PUBLISHED = {
    "cGAN": (0.4030, 0.5749),
    "U-Net": (0.3894, 0.5603),
    "FluidDiff": (0.1975, 0.3137),
    "PINN": (0.1324, 0.1767),
}


def records(work: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """What models know, and all frames of the test runs, half a step apart."""
    path = work / "smoke.npy"
    if not path.exists():
        np.save(path, smoke(RUNS, 2 * FRAMES, seed=0, steps=1))
    fields = np.load(path)
    coords = {"run": np.arange(RUNS), "time": np.arange(2 * FRAMES) / 2}
    every = xr.Dataset({"smoke": (("run", "time", "y", "x"), fields)}, coords)
    return every.isel(time=slice(None, None, 2)), every.isel(run=slice(RUNS - TEST, None))


def trained(work: Path, known: xr.Dataset, budget: float) -> FieldModel:
    """undrift's model."""
    run = work / "RUN"
    if not (run / "manifest.json").exists():
        undrift.fit(
            known, task=undrift.LeadTime(LONGEST), budget=budget, holdout=f"run={RUNS - TEST}/{RUNS - 1}",
            out=run, overwrite=True,
        )  # fmt: skip
    return undrift.load(run, data=known)


def rival(work: Path, name: str, problem: Problem, config: Config, steps: int) -> nn.Module:
    """The network trained as a regression, or as the generator of a GAN, for so many steps; goes on after a stop."""
    config = config.model_copy(deep=True)
    config.net.members = config.net.members if name == "regression" else 1
    config.train.budget, config.train.steps = None, steps
    path, folder = work / f"{name}.safetensors", work / f"{name} training"
    if not path.exists():
        with RunDirectory(folder, resume=folder.is_dir()) as run:
            if name == "regression":
                net = fit_regression(problem, config, torch.device("cpu"), run=run, identity={}, progress=None).net
            else:
                net = fit_gan(problem, config, run)
        save_file(net.state_dict(), path)
    net = build_net(problem, config)
    net.load_state_dict(load_file(path))
    return net.eval()


class Regressed:
    """A regression in the place of a diffusion: one answer, whatever the noise."""

    def __init__(self, net: nn.Module, micro_batch: int) -> None:
        self.net, self.micro_batch = net, micro_batch

    def sample(self, condition: Condition, z: Tensor, **_: object) -> Tensor:
        """The mean of its networks."""
        with torch.no_grad():
            each = [
                Regression().predict(torch.zeros_like(z), condition, member_of(self.net, k))
                for k in range(number_of(self.net))
            ]
        return torch.stack(each).mean(0)


class Beside(FieldModel):
    """A model of other networks on the same data, whose codec nothing was calibrated for."""

    def __init__(self, parts: Parts, problem: Problem, law: GAN | Regressed) -> None:
        super().__init__(parts, torch.device("cpu"), problem=problem)
        self.law = law

    def _law(self) -> Any:
        return self.law


def drawn(work: Path, name: str, model: FieldModel, states: xr.Dataset, realizations: int) -> xr.Dataset:
    """The ensemble of a model, drawn once."""
    path = work / f"{name}.nc"
    if not path.exists():
        bound = Bounds(low=0.0, high=DENSEST)
        model.sample(states, lead=list(LEADS), realizations=realizations, constraint=bound, out=path).close()
    return open_ensemble(path)


def errors(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Of one field for each sample."""
    return {"mae": float(np.abs(guess - truth).mean()), "rmse": float(np.sqrt(((guess - truth) ** 2).mean()))}


def of_ensemble(truth: np.ndarray, members: np.ndarray) -> dict[str, Any]:
    """Of members (m, n, *space): errors of one and of their mean, fair CRPS, spread over error."""
    mean = errors(truth, members.mean(0))
    spread = np.sqrt(members.var(0, ddof=1).mean() * (1 + 1 / len(members)))
    return {
        "one draw": errors(truth, members[0]), "mean": mean, "crps": float(fair_crps(truth, members).mean()),
        "spread/skill": float(spread / mean["rmse"]),
    }  # fmt: skip


def maps(ds: xr.Dataset, lead: float) -> np.ndarray:
    """Members (m, run, start, y, x) at a lead."""
    one = ds.smoke.sel(prediction_timedelta=lead)
    return one.transpose("realization", "run", "time", "y", "x").values.astype(np.float64)


def table(work: Path, model: FieldModel, rivals: dict[str, FieldModel], every: xr.Dataset) -> dict[str, Any]:
    """Scores by lead and model, over all test runs and starts."""
    states = every.sel(time=list(STARTS))
    ensembles = {"undrift": drawn(work, "undrift", model, states, REALIZATIONS)}
    ensembles["conditional GAN"] = drawn(work, "conditional GAN", rivals["conditional GAN"], states, REALIZATIONS)
    answer = drawn(work, "regression", rivals["regression"], states, 1)
    dressed, absent = rivals["regression"].forecast_baselines(ensembles["undrift"], states)
    assert "regression" in dressed, absent
    first = states.smoke.transpose("run", "time", "y", "x").values.astype(np.float64)
    out: dict[str, Any] = {}
    for lead in LEADS:
        later = every.smoke.sel(time=np.array(STARTS) + lead)
        truth = later.transpose("run", "time", "y", "x").values.astype(np.float64)
        rows: dict[str, Any] = {name: of_ensemble(truth, maps(ds, lead)) for name, ds in ensembles.items()}
        points = {"regression": maps(answer, lead)[0], "persistence": first}
        for name, point in points.items():
            crps = float(discrete_crps(truth, maps(dressed[name], lead)).mean())
            rows[name] = {"one draw": errors(truth, point), "crps dressed": crps}
        rows["EOF ridge"] = {"crps dressed": float(discrete_crps(truth, maps(dressed["EOF ridge"], lead)).mean())}
        out[f"{lead:g}"] = rows
    return out


def picture(work: Path, every: xr.Dataset, path: Path, run: int = 3, start: float = 10.0) -> None:
    """Truth, mean and draws of one start at each lead."""
    import matplotlib.pyplot as plt

    ens = {"undrift": open_ensemble(work / "undrift.nc"), "GAN": open_ensemble(work / "conditional GAN.nc")}
    rows = ["truth", "undrift, mean", "undrift, a draw", "undrift, another", "GAN, a draw"]
    figure, axes = plt.subplots(len(rows), 1 + len(LEADS), figsize=(8.4, 7.2))
    for column, lead in enumerate((0.0, *LEADS)):
        truth = every.smoke.isel(run=run).sel(time=start + lead).values
        maps = [truth] + [None] * 4
        if lead:
            one, gan = (e.smoke.isel(run=run).sel(time=start, prediction_timedelta=lead).values for e in ens.values())
            maps = [truth, one.mean(0), one[0], one[1], gan[0]]
        for row, values in enumerate(maps):
            axes[row, column].set_axis_off()
            if values is not None:
                axes[row, column].imshow(values, origin="lower", vmin=0, vmax=2.2, cmap="magma")
        axes[0, column].set_title("given" if not lead else f"lead {lead:g}", fontsize=9)
    for row, name in enumerate(rows):
        axes[row, 1].text(-0.08, 0.5, name, transform=axes[row, 1].transAxes, ha="right", va="center", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=75)


def main() -> None:
    """Make the runs, train, draw, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--work", type=Path, default=Path("smoke"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    known, every = records(chosen.work)
    model = trained(chosen.work, known, parse_duration(chosen.budget))
    problem = prepare(open_fields(known), None, model.task, model.config)
    steps, rivals, micro = model.facts["steps"], {}, model.config.sample.micro_batch
    for name, law in (("regression", Regressed), ("conditional GAN", GAN)):
        net = rival(chosen.work, name, problem, model.config, steps)
        twin = Rivals(problem.codec, torch.device("cpu"), torch.float32, net if name == "regression" else None)
        parts = replace(model.parts, codec=problem.codec, rivals=twin)
        rivals[name] = Beside(parts, problem, law(net, micro))
    found = {
        "budget_seconds": parse_duration(chosen.budget), "steps": steps, "network": model.describe()["network"],
        "test": {"runs": TEST, "starts": list(STARTS), "realizations": REALIZATIONS, "std": float(every.smoke.std())},
        "leads": table(chosen.work, model, rivals, every),
        "published (MAE, RMSE)": PUBLISHED,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if chosen.picture is not None:
        picture(chosen.work, every, chosen.picture)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
