"""The errors a user can meet, each with the exit code of the command line."""

__all__ = ["CheckpointError", "DataError", "IncompleteError", "Interrupted", "UndriftError", "UsageError"]


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
