"""What tests of the command line share."""

import signal

import pytest


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C reaches the tests: a shell's background jobs have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_drawing(monkeypatch):
    """Pages without the pixels of their pictures, which take most of the time of a report."""
    for kind in ("_png", "_svg"):
        monkeypatch.setattr(f"undrift.report.picture.{kind}", lambda *_: b"")
