"""``undrift report`` of what is of parameters: nested runs and densities of tables."""

from __future__ import annotations

__all__ = ["is_of_parameters", "report_parameters"]

import shlex
from pathlib import Path

from undrift.cli.output import emit_json, say
from undrift.errors import CheckpointError, UsageError

_POSTERIOR, _RUN = "posterior.nc", "run.nc"


def is_of_parameters(run: str) -> bool:
    """Whether a folder is a nested run or a density of parameters."""
    from undrift.model.density_model import is_density

    return _is_nested(run) or is_density(run)


def _is_nested(run: str) -> bool:
    return (Path(run) / "settings.json").is_file() and not (Path(run) / "config.toml").is_file()


def report_parameters(
    run: str, *, truth: list[str] | None, out: str, realizations: int | None, seed: int, overwrite: bool,
    verify: bool, json: bool,
) -> int:  # fmt: skip
    """Write the page about a nested run or a density, and tell its verdict."""
    from undrift.report.page import write_page

    typed = [word for word in (["--truth", *truth] if truth else [])]
    typed += [] if realizations is None else ["--realizations", str(realizations)]
    typed += ["--seed", str(seed)] if seed else []
    again = shlex.join(["undrift", "report", run, *typed, "--out", out])
    if _is_nested(run):
        if truth or realizations is not None or seed:
            raise UsageError(f"{run} is a nested run, of which nothing is drawn; type undrift report {run} --out {out}")
        section = _nested(run, again)
    else:
        section = _density(run, truth, realizations, seed, verify, again)
    write_page(out, [section], title=f"undrift: {Path(run).name}", overwrite=overwrite)
    if json:
        emit_json({"run": run, "out": out, "verdict": section.verdict})
    else:
        for line in section.verdict:
            say(line)
        say(f"the report: {out}")
    return 0


def _nested(run: str, again: str):
    """What the page shows of a nested run."""
    import xarray as xr

    from undrift.report.nested import nested_section

    folder = Path(run)
    for name in (_POSTERIOR, _RUN):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name} is absent: the run has not ended; type undrift nested PROBLEM.py --out {run} --resume"
            )
    with xr.open_dataset(folder / _POSTERIOR) as posterior, xr.open_dataset(folder / _RUN) as points:
        return nested_section(posterior.load(), points.load(), title=folder.resolve().name, commands=[again])
