"""``undrift nested``."""

from __future__ import annotations

__all__ = ["nested"]

import math
import signal
import sys
import types
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from undrift.cli.options import Flag, Json, Seed, set_threads
from undrift.cli.output import emit_json, facts, note
from undrift.cli.stopping import stopped_saying
from undrift.errors import DataError, UndriftError, UsageError

_MODULE = "undrift_problem"


def nested(
    problem: str,
    /,
    *,
    out: str,
    driver: Literal["importance", "dynesty"] = "importance",
    live: int | None = None,
    precision: float | None = None,
    most_calls: float = math.inf,
    most_failures: float = 0.1,
    workers: int = 1,
    seed: Seed = 0,
    resume: Flag = False,
    json: Json = False,
) -> int:
    """Find the evidence and the posterior of a likelihood of your own.

    Example: undrift nested problem.py --out RUN

    PROBLEM is a Python file that defines log_likelihood(theta), which returns
    ln L in nats; prior_transform(u), which returns the parameters of a point of
    the unit cube; and parameters, a list of their names or a dict from names to
    LaTeX labels. It is run: type files that you trust. RUN gets posterior.nc,
    run.nc (how it went, for undrift report), the chain chain.txt for getdist
    and anesthetic, and the state that --resume goes on with.

    Args:
        problem: The Python file.
        out: Folder to write.
        driver: importance: ln Z from draws of a learned mixture, which takes the fewest calls.
            dynesty: live points, moved by learned steps, where importance can tell no error.
        live: Points that a contour is learned from, or that live. Default 1000, or 25 a parameter.
        precision: The standard error of ln Z to draw for, by importance. Default 0.01.
        most_calls: Calls of the likelihood after which it ends.
        most_failures: Share of the calls that may raise or return NaN before it stops.
        workers: Processes that call the likelihood at the same time. Of more than eight dynesty uses eight.
        resume: Go on with the state in OUT.
    """
    path, folder = Path(problem), Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out} is a file; name a folder with --out")
    if (folder / "settings.json").exists() and not resume:
        raise UsageError(f"{out} holds the state of a run; type --resume to go on with it, or another --out")
    again = "type the same command with --resume to go on"
    with stopped_saying(lambda: again):
        log_likelihood, prior_transform, parameters = _problem(path)
        from undrift.data.rows import write_rows
        from undrift.infer.nested import nested as run

        set_threads()
        try:
            with _pool(path, workers) as pool:
                found = run(
                    log_likelihood, prior_transform, len(parameters), names=list(parameters),
                    labels=list(parameters.values()), driver=driver, live=live, precision=precision,
                    most_calls=most_calls, most_failures=most_failures, pool=pool, seed=seed, out=folder,
                    resume=resume,
                )  # fmt: skip
        except BrokenExecutor as error:
            raise UndriftError(
                f"a process that called the likelihood died, of too little memory perhaps; {again}"
            ) from error
    found.to_netcdf(folder / "posterior.nc")
    write_rows(found.run_dataset(), folder / "run.nc")
    found.to_getdist(folder / "chain")
    _keep_prior(prior_transform, list(parameters), seed, folder)
    told = {
        "ln Z": found.log_z, "error": found.log_z_error, "reliable": found.reliable, "calls": found.calls,
        "failed": found.failed, "information (nats)": found.information, "posterior": str(folder / "posterior.nc"),
        "chain": str(folder / "chain"),
    }  # fmt: skip
    if json:
        emit_json(told)
    else:
        facts({**told, "ln Z": f"{found.log_z:.4f} +- {found.log_z_error:.4f}"})
        note(f"next: undrift report {out}, or undrift train {folder / 'chain'} --task density --out DENSITY")
    return 0


def _keep_prior(prior_transform: Callable[..., Any], names: list[str], seed: int, folder: Path) -> None:
    """Write the prior of each parameter, which the report compares the posterior with."""
    from undrift.data.rows import write_rows
    from undrift.infer.nested_prior import prior_by_parameter

    try:
        prior = prior_by_parameter(prior_transform, names, seed=seed)
    except Exception as error:  # whatever a user's code raises at the edges of the cube
        note(f"no divergences by parameter: prior_transform raised {type(error).__name__}: {error}")
        return
    write_rows(prior, folder / "prior.nc")


def _load(path: Path) -> dict[str, Any]:
    """The names of a file that is run as a module, which other processes know its functions by."""
    sys.path.insert(0, str(path.parent.resolve()))  # what lies beside a script can be imported, here too
    module = types.ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return vars(module)


def _pool(path: Path, workers: int) -> AbstractContextManager[Executor | None]:
    """Processes that have run the file, or None where there is one."""
    if workers < 1:
        raise UsageError(f"workers is {workers}, expected at least 1")
    if workers == 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begun, initargs=(path,))


def _begun(path: Path) -> None:
    """Load the file in a process, which leaves Ctrl-C to the one that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load(path)


def _problem(path: Path) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, str]]:
    """What a file defines.

    Raises:
        DataError: It is absent, or cannot be run.
        UsageError: Something is not defined.
    """
    if not path.is_file():
        raise DataError(f"{path}: cannot be opened; expected a Python file with log_likelihood and prior_transform")
    try:
        names = _load(path)
    except Exception as error:
        raise DataError(f"{path}: cannot be run ({type(error).__name__}: {error})") from error
    for name in ("log_likelihood", "prior_transform", "parameters"):
        if name not in names:
            raise UsageError(
                f"{path} does not define {name}; define log_likelihood(theta), prior_transform(u) and parameters"
            )
    for name in ("log_likelihood", "prior_transform"):
        if not callable(names[name]):
            raise UsageError(f"{path} defines {name} as {type(names[name]).__name__}, expected a function")
    parameters = names["parameters"]
    if not isinstance(parameters, dict):
        if isinstance(parameters, str) or not all(isinstance(name, str) for name in parameters):
            raise UsageError(f"{path} defines parameters as {parameters!r}, expected names, such as ['x0', 'x1']")
        if twice := [name for name in parameters if list(parameters).count(name) > 1]:
            raise UsageError(f"{path} defines parameters with {twice[0]!r} twice; expected different names")
        parameters = {name: name for name in parameters}
    if not parameters:
        raise UsageError(f"{path} defines no parameters; expected names, such as parameters = ['x0', 'x1']")
    return names["log_likelihood"], names["prior_transform"], dict(parameters)
