"""The errors a user can meet, each with the exit code of the command line."""

__all__ = [
    "CheckpointError",
    "DataError",
    "IncompleteError",
    "Interrupted",
    "UndriftError",
    "UsageError",
    "check_kind",
    "check_number",
    "check_whole",
    "described",
    "needs_extra",
    "suggests_options",
]

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from numbers import Integral
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


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Say how to install what is imported within, where it is absent.

    Raises:
        UsageError: it is.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{what} needs {error.name or 'a package'}, which is not installed; type pip install 'undrift[{extra}]'"
        ) from None


def described(value: object) -> str:
    """A value as a sentence names it: numbers and words as they are, arrays by their shape, classes as such."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    name, shape = type(value).__name__, getattr(value, "shape", None)
    return name if shape is None else f"{name} {tuple(shape)} of {getattr(value, 'dtype', 'unknown dtype')}"


def check_kind(kinds: type | tuple[type, ...], such_as: str, /, **values: object) -> None:
    """Values by name that have to be objects of a kind.

    Args:
        kinds: the class, or some of which one will do.
        such_as: what to type where nothing nearer is known.
        values: the values.

    Raises:
        TypeError: one is not; of a class in place of its object, or of the name of one, the sentence says what to type.
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    for name, value in values.items():
        if isinstance(value, kinds):
            continue
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"{name.replace('__', ' ')} is {described(value)}, expected an object of {expected}; "
            f"type {_meant(value, kinds) or such_as}"
        )


def _meant(value: object, kinds: tuple[type, ...]) -> str | None:
    """The call that makes the object of which a class or a name was given, None where there is none."""
    from inspect import Parameter, isabstract, signature

    known = {kind.__name__.lower(): kind for kind in _below(kinds) if not isabstract(kind) and kind.__name__[0] != "_"}
    if isinstance(value, str):
        from difflib import get_close_matches

        word = "".join(c for c in value.lower() if c.isalnum())
        value = known.get(next(iter(get_close_matches(word, known, n=1)), ""))
    if not isinstance(value, type) or not issubclass(value, kinds) or isabstract(value):
        return None
    needed = [name for name, one in signature(value).parameters.items() if one.default is Parameter.empty]
    return f"{value.__name__}({', '.join(needed)}), of {value.__module__}"


def _below(kinds: tuple[type, ...]) -> Iterator[type]:
    for kind in kinds:
        yield kind
        yield from _below(tuple(kind.__subclasses__()))


def check_whole(least: int | None = None, /, **values: object) -> None:
    """Values by name that have to be whole numbers, of at least ``least``.

    Raises:
        UsageError: one is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and int(value) < least):
            bound = "" if least is None else f" of at least {least}"
            raise UsageError(f"{name} is {described(value)}, expected a whole number{bound}")


def check_number(finite: bool = True, /, **values: object) -> None:
    """Values by name that have to be real numbers: no words, no arrays, no NaN, and, unless allowed, none infinite.

    Raises:
        UsageError: one is not.
    """
    for name, value in values.items():
        try:
            number = math.nan if isinstance(value, str) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):
            number = math.nan
        if math.isnan(number) or (finite and math.isinf(number)):
            raise UsageError(f"{name} is {described(value)}, expected a {'finite ' if finite else ''}number")
