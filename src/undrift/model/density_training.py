"""From a table of samples to a density of parameters."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.config import Config
from undrift.data.atoms import dequantized
from undrift.data.autocorrelation import blocks
from undrift.data.log_density import log_density_of
from undrift.data.parameters import Parameters
from undrift.data.table import Table, open_table
from undrift.distributions.base import Base
from undrift.distributions.estimators import Choice, Fitting, chosen, fit_density
from undrift.distributions.recoded import Recoded
from undrift.errors import DataError, UsageError
from undrift.model.density_model import DensityModel, is_density, load_density, refuse_device
from undrift.process import Key, normal
from undrift.progress import track
from undrift.verify.likelihood import learned_by_heart, mean_likelihood

__all__ = ["fit_density_config", "held_and_stop", "split_of", "table_of"]

logger = logging.getLogger(__name__)

_BUDGET = 180.0  # seconds, unless told otherwise
_HOLDOUT, _STOP = 0.1, 0.1  # shares of rows: never seen, and such that only tell when to stop
_HEEDED = {
    "data": ("paths", "variables", "covariates", "periodic", "holdout"),
    "task": ("name",),
    "train": ("budget", "steps", "patience", "seed", "device"),
}  # settings beside those of [density]; all others are of fields
_AT_ONCE = ("kde", "mixture", "gp")  # estimators that are not trained step by step
_DRAWS = 20_000  # of a density where a flow begins
_ONE_PLACE = 1e-9  # of points of unit scale: what differs less is rounding


def fit_density_config(
    config: Config,
    *,
    data: Any = None,
    base: Any = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> DensityModel | dict[str, Any]:
    """What ``undrift.fit`` does of a table, from a resolved configuration."""
    folder = None if out is None else _folder(Path(out), overwrite)
    config = config.model_copy(deep=True)
    t, d = config.train, config.density
    if t.steps is None and t.budget is None:
        t.budget = _BUDGET
    _refuse_idle(config)
    if t.steps is not None and d.estimator in _AT_ONCE:
        raise UsageError(f"--steps {t.steps} is of networks, and --estimator {d.estimator} takes none; leave it out")
    refuse_device(t.device)
    table = table_of(config, data)
    for remark in table.remarks:
        logger.warning("%s", remark)
    held, stop = held_and_stop(config, table)
    seen = table.take(~held)
    begun, law = _base_of(config, base, table)
    choice = chosen(_estimator(config, begun), seen.effective, len(table.names), len(table.given_names), t.budget)
    logger.info("the density is estimated by %s: %s", choice.estimator, choice.reason)
    place = None if begun is None else f"{len(begun.values)} {'draws' if law else 'rows'} of {begun.source}"
    facts = _facts(config, table, held, choice, place)
    log_density = None
    if choice.estimator == "gp":
        if d.dequantize:
            raise UsageError("--dequantize moves the samples from where their log-densities are; type --estimator kde")
        log_density, facts["log density"] = log_density_of(seen)
    if dry_run:
        length = f"{t.steps} steps" if t.steps is not None else f"{t.budget:g} s of training"
        return facts | {"time": length if choice.estimator not in _AT_ONCE else "seconds"}
    parameters = Parameters.fit(seen)
    y, jacobian = parameters.encode(seen.values)
    if log_density is not None:
        log_density = log_density - jacobian
    told = parameters.encode_given(seen.given) if table.given_names else None
    with track("fitting the density", None, enabled=progress):
        fitting = Fitting(
            budget=t.budget, steps=t.steps, seed=t.seed, coupling=d.coupling,
            base=None if begun is None else _encoded(begun, law, parameters), log_density=log_density,
        )  # fmt: skip
        if t.patience is not None:
            fitting = replace(fitting, patience=t.patience)
        facts["estimator"], density, how = fit_density(choice, y, seen.weights, told, stop[~held], fitting)
    log = how.pop("log", [])
    facts["training"] = how
    model = DensityModel(config, parameters, density, facts, log=log)
    score: dict[str, Any] = _scored(model, table, held, ~held & ~stop) if model.has_log_prob else {}
    facts["log likelihood"] = score
    if law is not None and score.get("outside"):
        logger.warning(
            "%d of %d held-out rows have density 0, as the flow carries them beyond the bounds of %s; fit that with "
            "wider bounds, or none", score["outside"], score["outside"] + score["rows"], place,
        )  # fmt: skip
    if folder is not None:
        model.save(folder, overwrite=overwrite)
    return model


def _folder(folder: Path, overwrite: bool) -> Path:
    """Where a run is written.

    Raises:
        UsageError: something is there that is not to be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a directory to write the run to")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder} exists; type --overwrite (overwrite=True) to replace it")
    return folder


def _facts(config: Config, table: Table, held: NDArray[np.bool_], choice: Choice, base: str | None) -> dict[str, Any]:
    """What is known of a density before it is fitted."""
    flows = choice.estimator == "flow-matching"
    return {
        "task": "density", "estimator": choice.estimator, "reason": choice.reason,
        "names": list(table.names), "labels": list(table.labels), "given_names": list(table.given_names),
        "rows": len(table.values), "effective": round(table.effective, 1), "held out": int(held.sum()),
        "bounds": [[None if np.isinf(v) else float(v) for v in pair] for pair in table.bounds],
        "periodic": [bool(v) for v in table.periodic], "remarks": list(table.remarks),
        "coupling": config.density.coupling if flows else None,
        "base": base,
    }  # fmt: skip


def _estimator(config: Config, base: Table | None) -> str:
    """The one that is asked for; of a coupling or a base the one that heeds it."""
    d = config.density
    asked = [name for name, said in (("coupling", d.coupling != "independent"), ("base", base is not None)) if said]
    if not asked:
        return d.estimator
    if d.estimator not in ("auto", "flow-matching"):
        raise UsageError(
            f"--{asked[0]} is of flow matching, and --estimator {d.estimator} knows nothing of it; "
            "type --estimator flow-matching"
        )
    given = bool(config.data.covariates)
    if (d.coupling == "ot" and given) or (d.coupling == "conditional-ot" and not given):
        other = "conditional-ot" if given else "ot"
        raise UsageError(
            f"--coupling {d.coupling} with{'' if given else 'out'} covariates would "
            + ("make where the flow begins depend on them" if given else "have nothing to heed")
            + f"; type --coupling {other}"
        )
    return "flow-matching"


def _base_of(config: Config, base: Any, table: Table) -> tuple[Table | None, DensityModel | None]:
    """The table where a flow begins, in the columns of the data; or draws of a density, and that density.

    Of a chain it is without the rows that are ignored.
    """
    if base is not None and config.density.base is not None:
        raise UsageError(f"got a base in memory beside the base {config.density.base}; leave one of them out")
    source = base if config.density.base is None else config.density.base
    if source is None:
        return None, None
    law = load_density(source) if isinstance(source, str | Path) and is_density(source) else source
    if isinstance(law, DensityModel):
        told = "a density" if law.run is None else f"the density {law.run}"
        return replace(open_table(_draws_of(law, told, config, table), variables=table.names), source=told), law
    found, ignored = open_table(source, variables=table.names), config.density.ignore_rows
    if ignored and found.chain is not None:  # rows in no order have no beginning
        found = open_table(source, variables=table.names, ignore_rows=ignored)
    for remark in found.remarks:
        logger.warning("of the base: %s", remark)
    return found, None


def _draws_of(law: DensityModel, told: str, config: Config, table: Table) -> Any:
    """Draws of a density of the columns of the data.

    Raises:
        UsageError: it is one of others, or of these given others.
    """
    given = "".join(f" given {', '.join(names)}" for names in [law.facts["given_names"]] if names)
    if given or set(law.names) != set(table.names):
        got = f"{told} of {', '.join(law.names)}{given}"
        raise UsageError(f"the base is {got}, expected one of {', '.join(table.names)} with nothing given")
    z = normal(Key(config.train.seed, "base", 0), (_DRAWS, law.density.numbers))  # not what `sample` begins at
    values = law.parameters.decode(law.density.draw(z))
    return xr.Dataset({name: ("sample", column) for name, column in zip(law.names, values.T, strict=True)})


def _encoded(base: Table, law: DensityModel | None, parameters: Parameters) -> Base:
    known = None if law is None or not law.has_log_prob else _recoded(law, base, parameters)
    with np.errstate(all="ignore"):
        y, jacobian = parameters.encode(base.values)
    beyond = ~(np.isfinite(y).all(1) & np.isfinite(jacobian)) & (base.weights > 0)
    if beyond.any():
        raise DataError(
            f"{base.source}: row {int(np.flatnonzero(beyond)[0]) + 1} of the base lies outside the bounds of the "
            f"parameters, as {int(beyond.sum())} do; drop them, or widen --bounds"
        )
    if np.ptp(y[base.weights > 0], axis=0).max() < _ONE_PLACE:
        raise DataError(f"{base.source}: all rows of the base are the same, and a flow from one point goes nowhere")
    return replace(Base.of(y, base.weights), law=known)


def _recoded(law: DensityModel, base: Table, parameters: Parameters) -> Recoded:
    """The law of the base in the coordinates of the flow.

    Raises:
        UsageError: it reaches beyond the bounds of a parameter.
    """
    order = np.array([law.names.index(name) for name in base.names])
    for name, at, axis in zip(base.names, order, parameters.axes, strict=True):
        own = law.parameters.axes[at]
        if own.low < axis.low or own.high > axis.high:
            low, high = ("N" if np.isinf(end) else f"{end:g}" for end in (axis.low, axis.high))
            raise UsageError(
                f"{base.source} reaches beyond the bounds of {name}, {low}/{high}; fit it with --bounds "
                f"{name}={low}/{high} too"
            )
    return Recoded(law.facts["estimator"], law.density, law.parameters, parameters, order)


def held_and_stop(config: Config, table: Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows (n,) of the table of a configuration are held out, and which others tell when to stop."""
    part, share = split_of(table, np.random.default_rng([config.train.seed, 5])), _share(config.data.holdout)
    return part < share, (part >= share) & (part < share + _STOP * (1 - share))


def split_of(table: Table, rng: np.random.Generator) -> NDArray[np.float64]:
    """A uniform number of each row to split by, (n,), one for rows that are the same: no row has its copy elsewhere.

    A chain that stays where it is has such rows.
    """
    numbers = _numbers(table, rng)
    rows = np.hstack([table.values, table.given])
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return numbers[first][which.reshape(-1)]


def _refuse_idle(config: Config) -> None:
    """Refuse settings that no estimator heeds."""
    usual = Config()
    for section in sorted(set(Config.model_fields) - {"density"}):
        for name, value in getattr(config, section):
            if name not in _HEEDED.get(section, ()) and value != getattr(getattr(usual, section), name):
                raise UsageError(
                    f"{section}.{name} is {value}, which the density of a table knows nothing of; leave it out"
                )


def _share(holdout: str | None) -> float:
    """The share of rows that is held out: rows of a table have no end as a record has one, so that they are drawn."""
    if holdout is None:
        return _HOLDOUT
    try:
        share = float(holdout.strip().removesuffix("%")) / (100 if holdout.strip().endswith("%") else 1)
    except ValueError:
        share = np.nan
    if not 0 <= share < 1:
        raise UsageError(f"--holdout {holdout}: of a table a share of its rows is held out; type such as --holdout 10%")
    return share


def _numbers(table: Table, rng: np.random.Generator) -> NDArray[np.float64]:
    """A uniform number for each row; one for neighbours that a chain in order has not forgotten between them."""
    if table.chain is None:
        return rng.random(len(table.values))
    block = blocks(table.values, table.chain)
    return rng.random(int(block.max()) + 1)[block]


def table_of(config: Config, data: Any = None) -> Table:
    """The table of a configuration, or of what was passed beside it."""
    paths, d = config.data.paths, config.density
    if len(paths) > 1:
        raise UsageError(f"got {len(paths)} files; a density is of one table or chain, such as {paths[0]}")
    bounds = None
    if d.bounds is not None:
        bounds = d.bounds if isinstance(d.bounds, str) else {k: tuple(v) for k, v in d.bounds.items()}
    periodic = [name for name in config.data.periodic if name != "none"]
    table = open_table(
        paths[0] if paths else data, variables=config.data.variables or None,
        covariates=config.data.covariates or None, ignore_rows=d.ignore_rows, bounds=bounds, periodic=periodic,
    )  # fmt: skip
    return dequantized(table, config.train.seed) if d.dequantize else table


def _scored(
    model: DensityModel, table: Table, held: NDArray[np.bool_], seen: NDArray[np.bool_]
) -> dict[str, float | int | None]:
    """Weighted mean log-likelihood of rows that are held out, in nats, beside that of as many that were not."""
    weighed = table.weights > 0
    count, rng = min(int((held & weighed).sum()), 2000), np.random.default_rng(0)
    if count == 0 or not (seen & weighed).any():
        return {}
    found = []
    for rows in (held, seen):
        at = rng.permutation(np.flatnonzero(rows & weighed))[:count]
        one = table.take(np.sort(at))
        found.append(mean_likelihood(model.log_prob_of(one)[0], one.weights))
    unseen, trained = found
    if not unseen.rows or not trained.rows:
        return {}
    score = {
        "held out": unseen.mean, "standard error": unseen.error, "of training rows": trained.mean,
        "rows": unseen.rows, "outside": unseen.outside,
    }  # fmt: skip
    if learned_by_heart(score):
        logger.warning(
            "rows of the training are likelier by %.2f nats than rows that were held out: they are learned by heart. "
            "Type a smaller --budget, or --estimator kde or mixture", trained.mean - unseen.mean,
        )  # fmt: skip
    return score
