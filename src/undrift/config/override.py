"""Keys of a configuration replaced by what was typed: arguments, options and ``--set``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "apply_arguments", "apply_settings", "overlaid", "refuse_idle_options"]

import tomllib
from collections.abc import Mapping

from pydantic import ValidationError

from undrift.config.mistakes import keys_of, sentence, unknown
from undrift.config.sections import Config, Section
from undrift.errors import UsageError


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
                raise UsageError(f"{key!r} is a section; type one of its keys, such as {key}.{keys_of(path[0])[0]}=...")
            raise UsageError(unknown(path[:1]))
        section = getattr(result, path[0])
        if path[1] not in type(section).model_fields:
            raise UsageError(unknown(path[:2]))
        current = getattr(section, path[1])
        if len(path) > 2:
            if not isinstance(current, dict):
                raise UsageError(f"unknown key {key!r}: {'.'.join(path[:2])} holds one value and no table")
            value = {**current, ".".join(path[2:]): value}
        _assign(section, path, value)
    return result


def overlaid(config: Config, top: Config) -> Config:
    """Return a copy of `config` with the keys that `top` was read with in their place."""
    result = config.model_copy(deep=True)
    for section in top.model_fields_set:
        part = getattr(top, section)
        for key in part.model_fields_set:
            setattr(getattr(result, section), key, getattr(part, key))
    return result


DENSITY = ("estimator", "ignore_rows", "bounds", "dequantize", "coupling", "base")  # options of the density of a table
ARGUMENTS = {
    "data": "data.paths",
    "task": "task.name",
    "factor": "task.factor",
    "past": "task.past",
    "future": "task.future",
    "members": "task.members",
    "longest": "task.longest",
    **{
        name: f"data.{name}"
        for name in ("given", "variables", "static", "covariates", "dims", "periodic", "select", "holdout")
    },
    **{name: f"density.{name}" for name in DENSITY},
    **{name: f"train.{name}" for name in ("crop", "budget", "steps", "baselines", "device", "seed", "fork")},
}
"""Arguments of `undrift.fit`, which are options of `undrift train` too, and the keys that they set."""


def refuse_idle_options(arguments: Mapping[str, object], task: str | None, given: object) -> None:
    """Refuse a factor where nothing is averaged by it, and frames and members where there are none."""
    factor = arguments.get("factor")
    if factor is not None and (task in ("emulate", "enrich", "lead-time") or given):
        why = {
            "emulate": "an emulator is given no coarse map",
            "enrich": "a member is given others of DATA itself",
            "lead-time": "a state after a lead time is given those of DATA itself",
        }
        raise UsageError(
            f"got --factor {factor}, but {why.get(str(task), '--given names what is given')}; leave --factor out"
        )
    for name in ("past", "future"):
        tasks = ("window", "lead-time") if name == "past" else ("window",)
        if arguments.get(name) is not None and task not in tasks:
            what = "frames of a window" if name == "future" else "frames of a window, or states before a lead time"
            raise UsageError(f"got --{name} {arguments[name]}, {what}; type --task {' or '.join(tasks)} beside it")
    if arguments.get("members") is not None and task != "enrich":
        raise UsageError(f"got --members {arguments['members']}, members that are given; type --task enrich beside it")
    for name in DENSITY:
        if arguments.get(name) is not None and task != "density":
            option = name.replace("_", "-")
            raise UsageError(
                f"got --{option} {arguments[name]}, of the density of a table; type --task density beside it"
            )
    if task == "density":
        others = ("factor", "static", "dims", "select", "crop", "fork", "baselines", "given")
        idle = [name for name in others if arguments.get(name)]
        if idle:
            raise UsageError(f"got --{idle[0]}, which the density of a table knows nothing of; leave it out")
    if arguments.get("longest") is not None and task != "lead-time":
        raise UsageError(f"got --longest {arguments['longest']}, a lead time; type --task lead-time beside it")


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


def _assign(section: Section, path: tuple[str, ...], value: object) -> None:
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
        raise UsageError(sentence(".".join(path), error.errors(include_url=False))) from None
