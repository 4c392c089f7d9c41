"""Every row of figures on the page of weaknesses is what its benchmark wrote; run as a script it prints the rows."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "weaknesses.md").read_text() if (ROOT / "docs" / "weaknesses.md").exists() else ""


def read(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def evaluations():
    for row in read("weaknesses_maps")["evaluations"]:
        yield (
            f"| {row['nfe']} | {row['crps']:.4f} | {row['spread/skill']:.2f} | {row['variogram']:.5f} | "
            f"{row['small scales']:.2f} | {row['milliseconds']:.1f} |"
        )


def paired():
    for row in read("nfe")["rows"]:
        if row["nfe"] in (4, 10, 20):
            yield f"| {row['nfe']} | {100 * row['excess']:+.2f} ± {100 * row['standard_error']:.2f} |"


def detail():
    for name, row in read("weaknesses_maps")["detail"].items():
        yield (
            f"| {name} | {row['crps']:.4f} | {row['variogram']:.5f} | {row['small scales']:.2f} | {row['tail']:.4f} | "
            f"{row['maximum']:.3f} |"
        )


def constraints():
    found = read("weaknesses_flow")["constraints"]
    for name, row in found.items():
        before, after = (found[k]["residuals"].get(name) for k in ("none", name))
        told = "" if before is None else f"{before:.1e} | {after:.1e}"
        yield (
            f"| {name} | {told or ' | '} | {row['crps']:.4f} | {row['spread/skill']:.2f} | {row['small scales']:.2f} | "
            f"{row['milliseconds']:.1f} |"
        )


def costs():
    for name, row in read("constraints")["constraints"].items():
        yield f"| {name} | {row['ratio']:.2f} | {row['residual']:.0e} |"


def fields():
    for name, data in (("hadcm3", "HadCM3 temperature"), ("era5", "ERA5 temperature"), ("xclim", "CanESM2"),
                       ("jaxpm", "cosmological density")):  # fmt: skip
        for variable, row in read(f"quality_{name}")[0]["variables"].items():
            ratio, twin = row["spectrum_ratio"], row["variogram_baselines"]["regression"]
            yield (
                f"| {data}, {variable} | {min(ratio):.2f} to {max(ratio):.2f} | {row['variogram']:.3g} | {twin:.3g} |"
            )


def windows_seconds():
    found = read("windows")["middle hour"]
    return f"{found['seconds'] / (20 * found['windows']):.2f}"  # of a member, of which there are 20


PARTS = (evaluations, paired, detail, constraints, costs, fields)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_rows_are_what_was_measured(part):
    rows = list(part())
    assert rows and [row for row in rows if row not in PAGE] == []


def test_the_time_of_a_window_is_what_was_measured():
    assert f"in {windows_seconds()} s" in PAGE


def test_each_table_has_its_command_and_they_are_there():
    for script in ("weaknesses.py maps", "weaknesses.py flow", "sampler_nfe.py", "constraints.py", "quality.py"):
        assert f"benchmarks/{script}" in PAGE and (ROOT / "benchmarks" / script.split()[0]).exists()


if __name__ == "__main__":
    for part in PARTS:
        print(part.__name__, *part(), sep="\n")
