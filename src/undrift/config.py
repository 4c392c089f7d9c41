"""The resolved configuration of a run: typed sections, read from TOML and overridden by ``--set section.key=value``.

A configuration holds values only. It never names a class or a function to call (keys such as ``_target_`` or
``class_path`` are unknown keys like any other), so reading one written by somebody else is safe.
"""

from __future__ import annotations

__all__ = [
    "Codec",
    "Config",
    "Data",
    "Net",
    "Sample",
    "Task",
    "Train",
    "apply_arguments",
    "apply_settings",
    "config_text",
    "dump_config",
    "load_config",
    "nearest",
    "parse_config",
    "parse_duration",
    "parse_realizations",
    "refuse_idle_factor",
    "valid_seed",
]

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from undrift.errors import UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 8

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)", re.IGNORECASE)


def parse_duration(value: str | float) -> float:
    """Read a duration, the same way wherever one is typed.

    Args:
        value: Text such as ``90s``, ``3m``, ``2min``, ``2h``, ``1h30m``, or a number of seconds.

    Returns:
        The duration in seconds, positive and finite.

    Raises:
        UsageError: The text is no duration, or it is not positive.
    """
    advice = "type a duration such as 90s, 3m, 2h or 1h30m"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UsageError(f"got the duration {value!r}; {advice}")
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise UsageError(f"got the duration {text!r}; {advice}") from None
        seconds = sum(float(number) * _UNITS[unit[0].lower()] for number, unit in parts)
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"got the duration {text!r}, expected one longer than zero and finite; {advice}")
    return seconds


def parse_realizations(value: int | slice | str) -> slice:
    """Read which realizations are meant, the same way wherever they are named.

    Args:
        value: How many (20, "20"), or which ("100:200" or a slice; the end is not among them).

    Returns:
        The slice of a whole ensemble.

    Raises:
        UsageError: It is no number and no range, or it is empty.
    """
    start: Any = 0
    stop: Any = value
    step: Any = None
    if isinstance(value, slice):
        start, stop, step = value.start or 0, value.stop, value.step
    elif isinstance(value, str):
        first, colon, last = (word.strip() for word in value.partition(":"))
        words = [first or "0", last] if colon else ["0", first]
        if all(word.isdecimal() for word in words):
            start, stop = (int(word) for word in words)
    whole = isinstance(start, Integral) and isinstance(stop, Integral) and step in (None, 1)
    if not whole or not 0 <= int(start) < int(stop):
        raise UsageError(f"got --realizations {value}, expected a number such as 20 or a range such as 100:200")
    return slice(int(start), int(stop))


def valid_seed(seed: int) -> int:
    """The seed, where noise can be keyed by it.

    Raises:
        UsageError: It is no whole number from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise UsageError(f"got the seed {seed}, expected a whole number of at least 0, such as --seed 0")
    return int(seed)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or nothing when none is near."""
    found = difflib.get_close_matches(name.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.6)
    original = {n.lower(): n for n in names}
    return f"; did you mean {original[found[0]]!r}?" if found else ""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except UsageError as error:
        raise ValueError(str(error)) from None


Names = Annotated[list[str], BeforeValidator(_split)]
Channels = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]
Transform = Literal["auto", "standard", "censored", "bounded", "power"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True, validate_default=True)


class Data(_Section):
    """Which files are read and what is taken from them; None and empty lists mean "found out from the files"."""

    paths: Names = []
    """Files or globs; empty when the data came as an object."""
    given: Names = []
    """Files of what is given (downscaling from a real pair); empty: the area mean of the target."""
    variables: Names = []
    static: Names = []
    """Files, or names of variables without sample dims, that condition the model."""
    covariates: Names = []
    dims: Names = []
    """Names of the axes, in order, for data that does not name them (NumPy, HDF5)."""
    periodic: Names = []
    """Spatial dims that close on themselves; empty: a global longitude is found by itself; ``none``: no dim does."""
    select: str | None = None
    holdout: str | None = None
    """Samples kept out of training, such as ``year=2070/2099,scenario=E1`` or ``20%``; None means ``20%``."""


class Task(_Section):
    """What is given and what is asked."""

    name: Literal["downscale", "emulate"] = "downscale"
    factor: int = Field(default=4, ge=1, le=64)
    """Cells of the target per coarse cell, along each spatial dim."""


class Codec(_Section):
    """How physical values become the network's numbers."""

    transforms: dict[str, Transform] = {}
    """Per variable; a variable that is absent is ``auto``."""
    folds: int = Field(default=5, ge=2, le=100)
    """Contiguous folds of the out-of-fold residuals."""
    linear: bool = True
    """Model the residual to a linear predictor of what is given."""


class Net(_Section):
    """The network; an empty list of channels is chosen from data size and budget."""

    channels: Channels = []
    blocks: int = Field(default=1, ge=1, le=16)
    members: Annotated[int, Field(ge=1)] | None = None
    """Networks that share the training; realization n is drawn by the n-th in turn. None is chosen from data size and
    budget."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Probability with which a block drops a channel while training; None is chosen from data size and budget."""
    padding: Literal["zero", "reflect"] = "zero"
    """What the network sees beyond the ends of an axis that is not periodic: zeros, or the field mirrored."""


class Train(_Section):
    """How long and how the network is trained."""

    budget: Seconds | None = None
    """Wall clock of the training loop in seconds (text such as ``3m`` is read)."""
    steps: Annotated[int, Field(ge=1)] | None = None
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=1.0, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training during which the learning rate rises."""
    ema: float = Field(default=0.05, ge=0, le=0.288)
    """Width of the weights' moving average, as a share of the training."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations (on blocks of the training part) without a new best after which training stops; None: never before
    the budget or the steps are used. The best weights by validation are the result in any case. The learning rate
    falls until the end of the budget and the loss with it, so that stopping early saves time and costs quality."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    crop: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Cells along each side of a training window."""
    save_every: Seconds = 60.0
    """Seconds between checkpoints."""
    save_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints, in place of seconds."""
    baselines: bool = False
    """Also train the same net as a regression, to be scored beside the model."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")


class Sample(_Section):
    """How ensembles are drawn unless the command says otherwise."""

    nfe: int = Field(default=10, ge=1, le=10_000)
    """Network evaluations per realization."""
    micro_batch: int = Field(default=16, ge=1)
    """Fields per network call; results are bitwise the same for one value of it."""
    realizations: int = Field(default=20, ge=1)


class Config(_Section):
    """All sections of a run's ``config.toml``."""

    data: Data = Data()
    task: Task = Task()
    codec: Codec = Codec()
    net: Net = Net()
    train: Train = Train()
    sample: Sample = Sample()


def _fields(section: str | None = None) -> list[str]:
    if section is None:
        return list(Config.model_fields)
    return list(getattr(Config(), section).__class__.model_fields) if section in Config.model_fields else []


def _unknown(path: tuple[str, ...]) -> str:
    """Say that a key is unknown, and which known key is meant: in its own section first, then in the others."""
    name = path[-1]
    if len(path) == 1:
        homes = [s for s in _fields() if name in _fields(s)]
        hint = f"; did you mean '{homes[0]}.{name}'?" if homes else nearest(name, _fields())
        return f"unknown section {name!r}{hint or '; the sections are ' + ', '.join(_fields())}"
    known = _fields(path[0])
    hint = nearest(name, known)
    homes = [s for s in _fields() if name in _fields(s)]
    if not hint and homes:
        hint = f"; did you mean '{homes[0]}.{name}'?"
    return f"unknown key {'.'.join(path)!r}{hint or f'; the keys of [{path[0]}] are ' + ', '.join(known)}"


def _explain(error: ValidationError) -> tuple[tuple[str, ...], str]:
    """Return the path of the first mistake and one sentence about it."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    path = tuple(str(part) for part in first["loc"])
    if len(path) >= 2:
        # What follows section and key names branches of a union, or places in a list: no key that a user typed.
        path = path[: 3 if path[0] == "codec" and path[1] == "transforms" else 2]
    if first["type"] == "extra_forbidden":
        return path, _unknown(path)
    same = [one for one in error.errors(include_url=False) if one["loc"][: len(path)] == first["loc"][: len(path)]]
    return path, _sentence(".".join(path) or "the configuration", same)


def _sentence(key: str, errors: list[Any]) -> str:
    """What is wrong with one value, which may be one of several kinds."""
    shown = repr(errors[0]["input"])
    messages = [one["msg"].removeprefix("Value error, ") for one in errors if repr(one["input"]) == shown]
    if messages[0].startswith("got "):
        return f"{key}: {messages[0]}"
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    text = " or ".join(dict.fromkeys([messages[0], *(m.removeprefix("Input should be ") for m in messages[1:])]))
    return f"{key}: got {shown}; {text[:1].lower()}{text[1:]}"


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Map each key of a TOML text to its line; keys inside inline tables are found under their parent's line."""
    where: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\[\]=]+?)\s*\]+\s*(#.*)?$", line)
        entry = re.match(r"\s*((?:\"[^\"]*\"|'[^']*'|[\w.\- ])+?)\s*=", line)
        found = header or entry
        if not found:
            continue
        path = tuple(part.strip().strip("\"'") for part in found.group(1).split("."))
        if header:
            table = path
        for end in range(1, len(path) + 1):
            where.setdefault((() if header else table) + path[:end], number)
    return where


def _guard(text: str, source: str) -> None:
    """Refuse texts that are made to exhaust a parser, before it sees them."""
    for number, line in enumerate(text.splitlines(), 1):
        depth = deepest = 0
        for character in line:
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
        if deepest > 4 * MAX_DEPTH or line.split("=", 1)[0].count(".") > 4 * MAX_DEPTH:
            raise UsageError(f"{source}, line {number}: nested deeper than {MAX_DEPTH} levels")


def _depth(value: object) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        if level <= MAX_DEPTH and isinstance(node, dict | list):
            stack.extend((child, level + 1) for child in (node.values() if isinstance(node, dict) else node))
    return deepest


def parse_config(text: str, source: str = "the configuration") -> Config:
    """Read a configuration from TOML text.

    Args:
        text: The TOML; keys that are absent take their defaults.
        source: What to call the text in errors, such as its file name.

    Raises:
        UsageError: With the line, for bad TOML, a duplicate or unknown key, a wrong type, nan or inf.
    """
    if len(text.encode()) > MAX_BYTES:
        raise UsageError(f"{source} is larger than {MAX_BYTES:,} bytes; that is no undrift configuration")
    _guard(text, source)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r"\s*\((at [^)]*)\)$", r" \1", str(error))
        message = message.replace("at end of document", f"at line {len(text.splitlines())}")
        hint = " (a key or section given twice)" if "overwrite" in message or "twice" in message else ""
        raise UsageError(f"{source}: {message}{hint}") from None
    except RecursionError:
        raise UsageError(f"{source} is nested deeper than {MAX_DEPTH} levels") from None
    if _depth(values) > MAX_DEPTH:
        raise UsageError(f"{source} is nested deeper than {MAX_DEPTH} levels")
    try:
        return Config.model_validate(values, strict=True)
    except ValidationError as error:
        path, message = _explain(error)
        where = _lines(text)
        line = next((where[path[:end]] for end in range(len(path), 0, -1) if path[:end] in where), None)
        raise UsageError(f"{source}{f', line {line}' if line else ''}: {message}") from None


def load_config(path: str | Path) -> Config:
    """Read a configuration file; see `parse_config`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return parse_config(raw.decode("utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8; a configuration is a TOML file") from None


def apply_settings(config: Config, settings: Mapping[str, object]) -> Config:
    """Return a copy of `config` with keys replaced, as ``--set train.batch=8`` does.

    Args:
        config: Left as it is.
        settings: Dotted key to value. Text is read by the key's type: ``"8"``, ``"32,64,128"``, ``"3m"``, ``"none"``.

    Raises:
        UsageError: For an unknown key (the near one is named) or a value that the key cannot take.
    """
    result = config.model_copy(deep=True)
    for key, value in settings.items():
        path = tuple(part.strip() for part in key.split("."))
        if len(path) < 2 or path[0] not in Config.model_fields:
            if len(path) == 1 and path[0] in Config.model_fields:
                raise UsageError(f"{key!r} is a section; type one of its keys, such as {key}.{_fields(path[0])[0]}=...")
            raise UsageError(_unknown(path[:1]))
        section = getattr(result, path[0])
        if path[1] not in type(section).model_fields:
            raise UsageError(_unknown(path[:2]))
        current = getattr(section, path[1])
        if len(path) > 2:
            if not isinstance(current, dict):
                raise UsageError(f"unknown key {key!r}: {'.'.join(path[:2])} holds one value and no table")
            value = {**current, ".".join(path[2:]): value}
        _assign(section, path, value)
    return result


ARGUMENTS = {
    "data": "data.paths",
    "task": "task.name",
    "factor": "task.factor",
    **{
        name: f"data.{name}"
        for name in ("given", "variables", "static", "covariates", "dims", "periodic", "select", "holdout")
    },
    **{name: f"train.{name}" for name in ("crop", "budget", "steps", "baselines", "device", "seed")},
}
"""Arguments of `undrift.fit`, which are options of `undrift train` too, and the keys that they set."""


def refuse_idle_factor(factor: int | None, task: str | None, given: object) -> None:
    """Refuse a factor where nothing is averaged by it."""
    if factor is not None and (task == "emulate" or given):
        why = "an emulator is given no coarse map" if task == "emulate" else "--given names what is given"
        raise UsageError(f"got --factor {factor}, but {why}; leave --factor out")


def apply_arguments(config: Config, arguments: Mapping[str, object]) -> Config:
    """Return a copy of `config` with the keys of `ARGUMENTS` replaced; None means that an argument was not given.

    Where one of steps and budget is given, it says how long to train and the other is dropped.

    Raises:
        UsageError: Both are given, or a value is none that its key can take.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if "budget" in given and "steps" in given:
        raise UsageError("--budget and --steps both say how long to train; give one of them")
    result = apply_settings(config, {ARGUMENTS[name]: value for name, value in given.items()})
    if "budget" in given:
        result.train.steps = None
    if "steps" in given:
        result.train.budget = None
    return result


def _assign(section: _Section, path: tuple[str, ...], value: object) -> None:
    """Validate and set one key; text is read laxly (it came from a command line), other values strictly."""
    lax = isinstance(value, str)
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("none", "null") and type(section).model_fields[path[1]].default is None:
            value = None
        elif text[:1] in ("[", "{"):
            try:
                value = tomllib.loads(f"v = {text}")["v"]
            except (tomllib.TOMLDecodeError, RecursionError):
                raise UsageError(f"{'.'.join(path)}: cannot read {text!r} as a TOML value") from None
        else:
            value = text
    try:
        section.__pydantic_validator__.validate_assignment(section, path[1], value, strict=not lax)
    except ValidationError as error:
        raise UsageError(_explain_value(path, error)) from None


def _explain_value(path: tuple[str, ...], error: ValidationError) -> str:
    return _sentence(".".join(path), error.errors(include_url=False))


def config_text(config: Config) -> str:
    """Return the configuration as TOML; keys that are None are left out, as TOML has no null."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(exclude_none=True))


def dump_config(config: Config, path: str | Path) -> None:
    """Write the configuration as TOML, so that `load_config` returns an equal one."""
    Path(path).write_text(config_text(config), encoding="utf-8")
