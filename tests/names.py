"""`make check`: tests have the same names in each process, or two workers can not share them out.

A name has a parameter in it: no time, no address in memory, no order of a set.
"""

import difflib
import os
import subprocess
import sys

COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q"]


def main() -> int:
    runs = [
        subprocess.Popen(COLLECT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    said = [run.communicate()[0].splitlines() for run in runs]
    if any(run.returncode for run in runs):
        print(*(line for line in said[0] if "::" not in line), sep="\n")
        return 1
    first, second = ([line for line in lines if "::" in line] for lines in said)
    changed = [line for line in difflib.ndiff(first, second) if not line.startswith(" ")] if first != second else []
    print(*changed, f"{len(first)} tests, {len(changed)} with names that change", sep="\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
