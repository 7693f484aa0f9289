"""Run the timed tests many times on busy cores: `python -m tests.repeat`.

It takes every test that `tests.timed` marks (or those that match `-k`), fifty times, while a
loop keeps each core busy. It reports each test that failed and how often.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(100_000))"
"""A loop that ends with the process that started it."""
LEAST_PRIORITY = 15


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.repeat", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument(
        "--minutes", type=float, default=600, help="begin no run after these"
    )
    parser.add_argument(
        "--together", type=int, default=1, help="how many runs go on side by side"
    )
    parser.add_argument(
        "-k", default="", help="only these of the tests, as pytest takes it"
    )
    parser.add_argument("paths", nargs="*", default=["tests"])
    asked = parser.parse_args(arguments)
    if hasattr(os, "nice"):
        # Other users of this machine come first.
        os.nice(LEAST_PRIORITY)
    busy = [
        subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
        for _ in range(os.cpu_count() or 1)
    ]
    failed: Counter[str] = Counter()
    began, runs = time.perf_counter(), 0

    def once(number: int) -> list[str] | None:
        is_late = time.perf_counter() - began >= asked.minutes * 60
        return None if is_late else run(number, asked.k, asked.paths)

    try:
        with ThreadPoolExecutor(asked.together) as threads:
            for found in threads.map(once, range(1, asked.times + 1)):
                if found is not None:
                    runs += 1
                    failed.update(found)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    print(f"{runs} runs in {(time.perf_counter() - began) / 60:.0f} min")
    for test, count in failed.most_common():
        print(f"failed {count} times: {test}")
    return int(bool(failed))


def run(number: int, choice: str, paths: Sequence[str]) -> list[str]:
    """Run the tests once and return those that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "timed and not slow", *(["-k", choice] if choice else []), *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode and not failed:
        failed = [f"pytest itself: {(done.stdout + done.stderr)[-2000:]}"]
    closing = re.findall(r"^.* in [\d.]+s.*$", done.stdout, re.MULTILINE)
    print(f"{number}: {closing[-1] if closing else 'no closing line'}", flush=True)
    if failed:
        print(done.stdout[-6000:], flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
