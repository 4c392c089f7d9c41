"""Processes that may be killed or sent signals, forked from one that has imported the package.

A fresh interpreter spends a second and more on imports; where the test is about the process and not about how it is
started, a fork of a server that has them behind it is the same process in a tenth of the time.
"""

import multiprocessing
import os
from pathlib import Path

__all__ = ["begin", "cli"]

_IMPORTED = ["torch", "xarray", "undrift.train.loop", "undrift.model.training", "undrift.cli.main"]


def begin(work, *arguments):
    """Start ``work(*arguments)``, a function of a module, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def cli(words, folder, said):
    """The work of a process: one command of the command line, typed in a folder; what it says goes to a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)
    with Path(said).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from undrift.cli.main import main

    raise SystemExit(main([str(word) for word in words]))
