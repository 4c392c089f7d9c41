"""The errors a user can meet, each with the exit code of the command line."""

__all__ = [
    "CheckpointError",
    "DataError",
    "IncompleteError",
    "Interrupted",
    "UndriftError",
    "UsageError",
    "suggests_options",
]

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UndriftError(Exception):
    """Any failure that undrift explains in one sentence (exit code 1)."""

    exit_code = 1


class UsageError(UndriftError, ValueError):
    """An argument, option or configuration key that cannot be used (exit code 2)."""

    exit_code = 2


class DataError(UndriftError, ValueError):
    """Data that cannot be read or does not fit what is asked (exit code 3)."""

    exit_code = 3


class CheckpointError(UndriftError):
    """A run directory that is absent, broken or of another version (exit code 4)."""

    exit_code = 4


class IncompleteError(UndriftError):
    """An output that lacks parts (exit code 5)."""

    exit_code = 5


class Interrupted(UndriftError):
    """A signal stopped the work; what is saved can be resumed (exit code 75)."""

    exit_code = 75


def suggests_options(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb, which names the nearest of its options where one is misspelt."""
    from inspect import signature

    options = [name for name in signature(verb).parameters if name != "self"]

    @wraps(verb)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in options:
                from difflib import get_close_matches

                near = get_close_matches(name, options, n=1)
                known = f"did you mean {near[0]!r}?" if near else "the options are " + ", ".join(options)
                raise TypeError(f"{verb.__name__} has no option {name!r}; {known}")
        return verb(*args, **kwargs)

    return called
