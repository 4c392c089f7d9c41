"""The resolved configuration of a run: typed sections, read from TOML and overridden by ``--set section.key=value``.

A configuration holds values only. It never names a class or a function to call (keys such as ``_target_`` or
``class_path`` are unknown keys like any other), so reading one written by somebody else is safe.
"""

from undrift.config.override import ARGUMENTS, apply_arguments, apply_settings, overlaid, refuse_idle_options
from undrift.config.sections import Codec, Config, Data, Net, Sample, Task, Train
from undrift.config.toml import config_text, dump_config, forked, load_config, parse_config
from undrift.config.values import parse_duration, parse_realizations, valid_seed

__all__ = [
    "ARGUMENTS",
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
    "forked",
    "load_config",
    "overlaid",
    "parse_config",
    "parse_duration",
    "parse_realizations",
    "refuse_idle_options",
    "valid_seed",
]
