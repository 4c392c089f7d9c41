"""Seconds that `import undrift` and `undrift --help` take: python benchmarks/startup.py.

Medians of fresh processes, alternating with a bare interpreter whose time is taken off the import.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import undrift": [sys.executable, "-c", "import undrift"],
    "undrift --help": [sys.executable, "-m", "undrift", "--help"],
    "undrift train --help": [sys.executable, "-m", "undrift", "train", "--help"],
}
BOUNDS = {"import undrift": 0.1, "undrift --help": 0.5}


def main(repeats: int = 15) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["python"])
    for name, values in seconds.items():
        median = statistics.median(values) - (bare if name.startswith("import") else 0.0)
        bound = f"  (bound {BOUNDS[name]} s)" if name in BOUNDS else ""
        print(f"{name:<22} {median:.3f} s{bound}")


if __name__ == "__main__":
    main()
