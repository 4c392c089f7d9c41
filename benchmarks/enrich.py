"""Further members given three members of the same date, beside the given members themselves and their dressed mean.

    python benchmarks/enrich.py --budget 60s [--hadcm3 iris_A1B_E1_north_america_tas.nc]

Ensembles of ten members on 400 dates, of which the last fifth is held out:

- gaussian: x_m = s + e_m, Gaussian random fields of a steep and a flat spectrum. The law of a further member given
  three is known, and its continuous ranked probability score is the best that any can have;
- spread: the same with e_m of an amplitude of each date, which only the given members tell.

- hadcm3, where the file is given: the five years of a pentad of a climate simulation as its members, three given.

CRPS at the held-out members' cells; of ensembles of 20 the fair one. The bootstrap's law is that of the given members,
each as likely; a mean's is dressed with quantiles of its errors in training.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import norm

import undrift
from undrift.verify.crps import discrete_crps, fair_crps

DATES, MEMBERS, GIVEN = 400, 10, 3


def spectrum(size: int, power: float) -> np.ndarray:
    """Variance of each wave of a periodic square, of mean variance 1 of a cell."""
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size, 1 / size)] * 2))
    out = (1 + k) ** -power
    return out / out.sum() * size**2


def spectra(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of what members share, and of what each has alone."""
    return spectrum(size, 4.0), 0.7 * spectrum(size, 2.0)


def coloured(rng: np.random.Generator, shape: tuple[int, ...], power: np.ndarray) -> np.ndarray:
    """Fields (*shape, y, x) of a spectrum."""
    noise = np.fft.fft2(rng.normal(size=(*shape, *power.shape)))
    return np.fft.ifft2(noise * np.sqrt(power)).real


def labelled(values: np.ndarray) -> xr.Dataset:
    """Fields (date, member, y, x) as a dataset."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    dims = ("time", "number", "y", "x")
    coords = {"time": times, "number": np.arange(values.shape[1]), "y": np.arange(values.shape[2])}
    coords["x"] = np.arange(values.shape[3])
    return xr.Dataset({"field": (dims, values.astype(np.float32))}, coords)


def ensembles(size: int) -> dict[str, xr.Dataset]:
    """The two synthetic ones."""
    rng, (shared, own) = np.random.default_rng(0), spectra(size)
    s = coloured(rng, (DATES, 1), shared)
    e = coloured(rng, (DATES, MEMBERS), own)
    lively = np.exp(0.7 * rng.normal(size=(DATES, 1, 1, 1)))
    return {"gaussian": labelled(s + e).assign_attrs(gaussian=1), "spread": labelled(s + lively * e)}


def exact(given: np.ndarray, truth: np.ndarray) -> float:
    """CRPS of the known law of a further member given the mean (n, y, x) of three, at the truth of the same shape."""
    shared, own = spectra(truth.shape[-1])
    share = shared / (shared + own / GIVEN)
    mean = np.fft.ifft2(np.fft.fft2(given) * share).real
    std = np.sqrt((shared * (1 - share) + own).mean())
    w = (truth - mean) / std
    return float((std * (w * (2 * norm.cdf(w) - 1) + 2 * norm.pdf(w) - np.pi**-0.5)).mean())


def pentads(path: Path) -> xr.Dataset:
    """Each five years of the two scenarios, which are one until 1999, as a date of five members."""
    ds = xr.open_dataset(path)
    values = ds.tas.transpose("scenario", "year", "lat", "lon").values
    first = values.reshape(2, -1, 5, *values.shape[2:])
    both = np.concatenate([first[0, :28], np.moveaxis(first[:, 28:], 0, 1).reshape(-1, *first.shape[2:])])
    times = np.datetime64("1860-01-01", "ns") + np.arange(len(both)) * np.timedelta64(365, "D")
    coords = {"time": times, "number": np.arange(5), "lat": ds.lat.values, "lon": ds.lon.values}
    return xr.Dataset({"tas": (("time", "number", "lat", "lon"), both.astype(np.float32), {"units": "K"})}, coords)


def scores(data: xr.Dataset, training: dict[str, Any], periodic: str | None, at: str) -> dict[str, float]:
    """CRPS of one further member, mean over cells and held-out members."""
    name = next(iter(data.data_vars))
    model = undrift.fit(data, task=undrift.Enrich(GIVEN), periodic=periodic, progress=False, **training)
    assert isinstance(model, undrift.FieldModel)
    drawn = model.sample(holdout=True, at=at, realizations=20, progress=False)
    truth = data[name].sel(time=drawn.time, number=drawn.number)
    dims = ("time", "number", *truth.dims[-2:])
    want, got = truth.transpose(*dims).values, drawn[name].transpose("realization", *dims).values
    error = np.sqrt(((got.mean(0) - want) ** 2).mean())
    out = {"undrift": float(fair_crps(want, got).mean()), "steps": model.facts["steps"]}
    spread = np.sqrt(got.var(0, ddof=1).mean() * (1 + 1 / len(got)))
    problem = model.problem
    rows = problem.split.holdout
    size = data.sizes["number"]
    rows = rows[np.isin(data.number.values[rows % size], drawn.number.values)]
    given = problem.pair.given
    assert given is not None
    members = np.moveaxis(given.read(rows), 1, 0).reshape(GIVEN, *want.shape)
    if data.attrs.get("gaussian"):
        out["exact law"] = exact(members.mean(0).reshape(-1, *want.shape[2:]), want.reshape(-1, *want.shape[2:]))
    out["bootstrap of the given members"] = float(discrete_crps(want, members).mean())
    for label, ensemble in model.baselines(progress=False).items():
        one = ensemble[name].sel(time=drawn.time, number=drawn.number).transpose("realization", *dims).values
        out["dressed " + {"interpolation": "mean of the given members"}.get(label, label)] = float(
            discrete_crps(want, one).mean()
        )
    out["spread/error"] = float(spread / error)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--steps", type=int, help="of training, in place of a budget")
    parser.add_argument("--size", type=int, default=32, help="cells along each side of the synthetic fields")
    parser.add_argument("--members", default="0/2", help="labels of the held-out members that are scored")
    parser.add_argument("--hadcm3", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/enrich.json"))
    arguments = parser.parse_args()
    training = {"steps": arguments.steps} if arguments.steps else {"budget": arguments.budget}
    found: dict[str, Any] = {"training": training, "given": GIVEN, "size": arguments.size}
    at = f"number={arguments.members}"
    for name, data in ensembles(arguments.size).items():
        found[name] = scores(data, training, "y,x", at)
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    if arguments.hadcm3:
        found["hadcm3"] = scores(pentads(arguments.hadcm3), training, None, at)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
