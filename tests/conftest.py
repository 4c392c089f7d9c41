"""What the exact tests measure, kept for the table of ``docs/verification.md``: see ``make verify``."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption("--verification", metavar="FILE", help="write the table of what was measured, as Markdown")


@pytest.fixture
def measured(request):
    """``measured(method, quantity, against, expected, found, within=...)``: a comparison, kept and asserted.

    ``method`` is the public class or function, ``against`` what it is held against. ``within`` bounds
    ``|found - expected|``; ``least`` and ``most`` bound ``found`` by itself, and ``expected`` says so in words.
    """

    def keep(method, quantity, against, expected, found, *, within=None, least=None, most=None):
        if within is None and least is None and most is None:
            raise ValueError("a measurement needs within, least or most")
        found = float(found)
        good = within is None or abs(found - float(expected)) <= within
        good = good and (least is None or found >= least) and (most is None or found <= most)
        said = f"{expected:.6g}" if isinstance(expected, int | float) else str(expected)
        if within is not None:
            said = f"{float(expected):.6g} ± {within:.2g}"
        row = {
            "room": method.__module__.split(".")[1],
            "method": method.__name__,
            "quantity": quantity,
            "against": against,
            "expected": said,
            "found": f"{found:.6g}",
            "good": bool(good),
        }
        request.node.user_properties.append(("measured", row))
        assert good, f"{row['method']}, {quantity}: {found!r}, expected {said} (against {against})"

    return keep


class _Table:
    """Collects the measurements of a run."""

    def __init__(self, path):
        self.path, self.rows, self.failed = Path(path), [], False

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed
        if report.when == "call":
            self.rows += [value for name, value in report.user_properties if name == "measured"]

    def pytest_sessionfinish(self):
        if self.rows:
            self.path.write_text(table(self.rows), encoding="utf-8")


def pytest_configure(config):
    if path := config.getoption("--verification"):
        config.pluginmanager.register(_Table(path))


def table(rows):
    """The page: measurements by room and method; of the same quantity measured often, the last one or one that failed."""
    lines = [
        "# Verification",
        "",
        "Every public method of the rooms of the theory, what it is held against, what is expected and what was",
        "measured. Made by `make verify`; the tests of the same names fail where a line does.",
    ]
    for room in sorted({row["room"] for row in rows}):
        lines += ["", f"## {room}", "", "| method | quantity | held against | expected | measured | pass |"]
        lines += ["|---|---|---|---|---|---|"]
        order = sorted((r for r in rows if r["room"] == room), key=lambda r: not r["good"])
        kept = {(r["method"], r["quantity"], r["against"]): r for r in order}
        for key in sorted(kept):
            r = kept[key]
            cells = (f"`{r['method']}`", *(r[k] for k in ("quantity", "against", "expected", "found")))
            lines.append("| " + " | ".join([*cells, "yes" if r["good"] else "**no**"]) + " |")
    return "\n".join(lines) + "\n"
