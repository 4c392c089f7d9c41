"""What the exact tests measure, kept for the table of ``docs/verification.md``: see ``make verify``."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--verification", metavar="FILE", help="write the table of what was measured, as Markdown")


ORDER = ("process", "denoise", "objective", "solve", "guide", "infer")  # of the rooms on the page


@pytest.fixture
def measured(request):
    """``measured(method, quantity, against, expected, found, within=...)``: a comparison, kept and asserted.

    ``method`` is the public class or function, ``against`` what it is held against. ``within`` bounds
    ``|found - expected|``; ``least`` and ``most`` bound ``found`` by itself, and ``expected`` says so in words, in place
    of which the page has signs.
    """

    def keep(method, quantity, against, expected, found, *, within=None, least=None, most=None):
        if within is None and least is None and most is None:
            raise ValueError("a measurement needs within, least or most")
        found, good, used, bounds = float(found), [], [], []  # used: shares of what is allowed
        if within is not None:
            away = abs(found - float(expected))
            good.append(away <= within)
            used.append(away / within if within else away)
            bounds.append(_number(float(expected), within) + (f" ± {within:.2g}" if within else ""))
        if least is not None:
            good.append(found >= least)
            used.append(least / found if found > 0 else math.inf)
            bounds.append(f"≥ {least:.3g}")
        if most is not None:
            good.append(found <= most)
            used.append(found / most)
            bounds.append(f"≤ {most:.3g}")
        row = {
            "room": method.__module__.split(".")[1],
            "method": method.__name__,
            "quantity": quantity,
            "against": against,
            "expected": ", ".join(bounds),
            "found": _number(found, within),
            "good": bool(all(good)),
            "used": float(max(used)),
        }
        request.node.user_properties.append(("measured", row))
        assert row["good"], f"{row['method']}, {quantity}: {found!r}, expected {expected} (against {against})"

    return keep


@pytest.fixture
def agrees(measured):
    """``agrees(method, quantity, against, found, expected, rtol, atol=...)``: arrays that are close, kept and asserted.

    What is kept is the largest ``|found - expected| / (|expected| + atol / rtol)``.
    """

    def keep(method, quantity, against, found, expected, rtol, atol=0.0):
        found, expected = (np.asarray(v, dtype=np.float64) for v in (found, expected))
        assert found.shape == expected.shape, f"{quantity}: {found.shape}, expected {expected.shape}"
        away, size = np.abs(found - expected), np.abs(expected) + atol / rtol
        worst = np.max(np.divide(away, size, out=np.zeros_like(away), where=away != 0), initial=0.0)
        measured(method, quantity, against, "no difference", worst, most=rtol)

    return keep


def _number(value, within=None):
    """Three digits, more where the tolerance sees them; of rounding errors a bound, on which machines agree."""
    if 0 < abs(value) < 1e-9:
        return f"< {10.0 ** (math.floor(math.log10(abs(value))) + 1):.0e}"
    digits = 3
    if within and abs(value) > within:
        digits = min(max(digits, 1 + math.ceil(math.log10(abs(value) / within))), 7)
    return f"{value:.{digits}g}"


class _Table:
    """Collects the measurements of a run."""

    def __init__(self, path):
        self.path, self.rows = Path(path), []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.rows += [value for name, value in report.user_properties if name == "measured"]

    def pytest_sessionfinish(self):
        if self.rows:
            self.path.write_text(table(self.rows), encoding="utf-8")


def pytest_configure(config):
    if path := config.getoption("--verification"):
        config.pluginmanager.register(_Table(path))


def table(rows):
    """The page: by room and method; of a quantity that is measured often, the one that comes nearest to its bound."""
    kept = {
        (r["method"], r["quantity"], r["against"]): r for r in sorted(rows, key=lambda r: (not r["good"], r["used"]))
    }
    rooms = sorted(
        {r["room"] for r in kept.values()}, key=lambda room: (ORDER.index(room) if room in ORDER else 9, room)
    )
    good = sum(r["good"] for r in kept.values())
    lines = [
        "# Verification",
        "",
        "Every public class and function of the rooms of the theory: what it is held against, what is expected, and what",
        f"was measured. Made by `make verify`, whose tests fail where a line does. {good} of {len(kept)} lines pass.",
        "",
        "Each line is the worst of its cases. `≤` bounds the largest difference, relative to the size of the numbers",
        "compared unless the line says otherwise. What is drawn at random is told in standard errors, of which 4.5 are",
        "allowed, or by the p of a test of its law.",
    ]
    for room in rooms:
        lines += ["", f"## {room}", "", "| method | quantity | held against | expected | measured | pass |"]
        lines += ["|---|---|---|---|---|---|"]
        last = None
        for key in sorted(key for key, r in kept.items() if r["room"] == room):
            r = kept[key]
            name, last = "" if r["method"] == last else f"`{r['method']}`", r["method"]
            cells = [name, r["quantity"], r["against"], r["expected"], r["found"], "yes" if r["good"] else "**no**"]
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text):
    return re.sub(r"e([+-])0(\d)", r"e\1\2", str(text)).replace("|", r"\|")
