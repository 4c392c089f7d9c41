"""The command ``undrift``: finds the verb, and turns errors into one line and an exit code."""

from __future__ import annotations

__all__ = ["build", "main"]

import logging
import os
import sys
import traceback
import warnings

from cyclopts import App, CycloptsError, UnusedCliTokensError

from undrift import __version__
from undrift.errors import Interrupted, UndriftError

VERBS = {
    "check": "Say what is wrong with files, and suggest how to train on them.",
    "train": "Train a model on files and write a run directory.",
    "sample": "Draw an ensemble from a run.",
    "forecast": "Forecast from given frames, with a run of --task window.",
    "log-prob": "Write the log-density of rows of a table, or of fields.",
    "nested": "Find the evidence and the posterior of a likelihood of your own.",
    "evaluate": "Score an ensemble against the truth.",
    "report": "Draw, score and write one HTML page about a run.",
    "inspect": "Show what a run directory holds.",
    "demo": "Train, draw, score and report on the embedded climate data, in minutes.",
}

_MEANT = {"sample": "given", "forecast": "given", "log-prob": "given", "evaluate": "truth", "report": "truth"}
"""The option that a word without one is likely to be of."""

EPILOGUE = """\
The whole job: undrift check tas_*.nc, then the train line that it suggests, then undrift report RUN.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 data, 4 run directory, 5 incomplete output, \
75 stopped on a signal (train goes on with --resume, other verbs are typed again).

With --debug anywhere, or UNDRIFT_DEBUG=1, errors show where they come from."""


def build(verb: str | None = None) -> App:
    """Make the application.

    Verbs are registered by path: a verb's module is imported when it is called, and none of them imports torch or
    xarray at its top. The list of verbs shows `VERBS`; the help of one `verb` is its docstring.
    """
    app = App(
        name="undrift",
        help="Distributions from samples of physical fields: train on NetCDF, Zarr or NumPy files, draw ensembles, "
        "score them and report.",
        version=f"undrift {__version__}",
        help_format="plaintext",
        help_epilogue=EPILOGUE,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for place, (name, text) in enumerate(VERBS.items()):
        module = name.replace("-", "_")
        path = f"undrift.cli.{module}:{module}"
        if name == verb:
            app.command(path, name=name, help_epilogue="", sort_key=place)
        else:
            app.command(path, name=name, help=text, help_epilogue="", sort_key=place)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``undrift``; None takes the process's.

    Returns:
        The exit code; see the help text.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = os.environ.get("UNDRIFT_DEBUG", "") not in ("", "0")
    if "--debug" in words:
        words.remove("--debug")
        debug = True
    _show_warnings(debug)
    try:
        result = build(_verb_of(words))(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else 0
    except UnusedCliTokensError as error:
        return _fail(_too_many(words, error.unused_tokens or []), 2, debug)
    except CycloptsError as error:
        page = " ".join(["undrift", *filter(None, [_verb_of(words)]), "--help"])
        return _fail(f"{str(error).strip()} (see {page})", 2, debug)
    except UndriftError as error:
        return _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        # Whoever read our output has had enough, as `head` does. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        return _fail("; ".join(["stopped", *map(str, error.args)]), 130, debug)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(f"{name}{error.strerror or error}", 1, debug)
    except MemoryError as error:
        return _fail(f"out of memory{f': {error}' if str(error) else ''}", 1, debug)
    except Exception as error:
        text = " ".join(str(error).split())
        return _fail(f"unexpected {type(error).__name__}: {text} (--debug shows where)", 1, debug)


class _Lines(logging.Handler):
    """Log records as lines of the form "undrift: warning: ..." on whatever stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        print(f"undrift: {kind}{record.getMessage()}", file=sys.stderr, flush=True)


def _show_warnings(debug: bool) -> None:
    """Show our own warnings in one line each; those of libraries are for developers."""
    ours = logging.getLogger("undrift")
    if not any(isinstance(handler, _Lines) for handler in ours.handlers):
        ours.addHandler(_Lines())
        ours.propagate = False
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"undrift(\.|$)")
        warnings.showwarning = lambda message, *rest, **more: print(f"undrift: warning: {message}", file=sys.stderr)


def _verb_of(words: list[str]) -> str | None:
    return words[0] if words and words[0] in VERBS else None


def _too_many(words: list[str], unused: list[str]) -> str:
    """What to type in place of words that no argument is left for."""
    verb, left = _verb_of(words), " ".join(unused)
    page = " ".join(["undrift", *filter(None, [verb]), "--help"])
    instead = f"type --{_MEANT[verb]} {left}" if verb in _MEANT else "leave it out"
    return f"got {left}, which no argument takes; {instead} (see {page})"


def _fail(text: str, code: int, debug: bool) -> int:
    if debug and code != Interrupted.exit_code:
        traceback.print_exc()
    try:
        print(f"undrift: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code
