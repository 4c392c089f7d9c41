"""Draw docs/images/demo.png from a finished demo: python docs/images/make_demo.py demo docs/images/demo.png."""

import sys
from pathlib import Path

import matplotlib as mpl
import xarray as xr

import undrift

mpl.use("Agg")
import matplotlib.pyplot as plt

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
model = undrift.load(folder / "downscale")
given, truth = model.holdout_given(), model.holdout_truth()
assert given is not None
with xr.open_dataset(folder / "downscale.nc") as ensemble:
    one = ensemble.tas.isel(scenario=0).sel(year=2090).load()
panels = {
    "given (x4 coarser)": given.tas.isel(scenario=0).sel(year=2090),
    "truth": truth.tas.isel(scenario=0).sel(year=2090),
    "realization 1": one[0],
    "realization 2": one[1],
}
mean = one.mean("realization")
figure, axes = plt.subplots(2, 4, figsize=(11, 4.6), layout="constrained", sharex=True, sharey=True)
low, high = float(truth.tas.min()), float(truth.tas.max())
for axis, (title, field) in zip(axes[0], panels.items()):
    full = axis.pcolormesh(field.lon, field.lat, field, vmin=low, vmax=high, cmap="inferno", rasterized=True)
    axis.set_title(title, fontsize=10)
figure.colorbar(full, ax=axes[0], label="air temperature [K]", shrink=0.9)
lower = {
    "ensemble spread": one.std("realization", ddof=1),
    "truth - mean": panels["truth"] - mean,
    "realization 1 - mean": one[0] - mean,
    "realization 2 - mean": one[1] - mean,
}
for axis, (title, field) in zip(axes[1], lower.items()):
    style = (
        {"vmin": 0, "vmax": 0.6, "cmap": "YlGn"} if "spread" in title else {"vmin": -0.8, "vmax": 0.8, "cmap": "RdBu_r"}
    )
    shown = axis.pcolormesh(field.lon, field.lat, field.values, rasterized=True, **style)
    axis.set_title(title, fontsize=10)
figure.colorbar(shown, ax=axes[1], label="departure [K]; spread: 0 to 0.6 K", shrink=0.9)
figure.supxlabel("longitude [degrees east]", fontsize=9)
figure.supylabel("latitude [degrees north]", fontsize=9)
figure.savefig(out, dpi=110)
