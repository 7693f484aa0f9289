"""Kills, stops and hangs up servers, runs and their programs at random moments; counts what is left.

    python tests/endurance/chaos.py --rounds 100 --seed 1

Only Linux tells which process is which. It ends what it started, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import random  # noqa: TID251 - seeded, for tests
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from muxcore.shell import clock
from muxcore.standin import Model, StandInServer
from tests.gateway.conftest import as_toml, config
from tests.processes import COMMAND, ROOT, environment

MARK = "VIBE_MUX_CHAOS"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP)
PROGRAM = """
import json, os, time, urllib.request
models = {m["alias"]: m for m in json.loads(os.environ["VIBE_MODELS"])}
providers = {p["name"]: p for p in json.loads(os.environ["VIBE_PROVIDERS"])}
url = providers[models["large"]["provider"]]["api_base"] + "/chat/completions"
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "ping"}]}).encode()
headers = {"Authorization": "Bearer " + os.environ["VIBE_MUX_TOKEN"], "Content-Type": "application/json"}
end = time.monotonic() + 2.0
good = bad = 0
while time.monotonic() < end:
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5).read()
        good += 1
    except OSError:
        bad += 1
    time.sleep(0.02)
with open(os.environ["VIBE_MUX_CHAOS_OUT"], "a") as out:
    out.write(f"{good} {bad}\\n")
"""
GONE_SECONDS = 45.0
PAUSE = threading.Event()


@frozen
class Process:
    pid: int
    role: str


def processes(mark: str) -> list[Process]:
    return list(_processes(mark))


def _processes(mark: str) -> Iterator[Process]:
    """Find the processes of this test by their environment."""
    wanted = f"{MARK}={mark}".encode()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        with suppress(OSError):
            if wanted not in (place / "environ").read_bytes().split(b"\0"):
                continue
            words = (place / "cmdline").read_bytes().split(b"\0")
            if not words[0]:
                # It has ended, and its parent has not looked yet.
                continue
            if b"serve" in words:
                yield Process(int(place.name), "server")
            else:
                yield Process(int(place.name), "run" if b"run" in words else "program")


def send(process: Process, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


class Chaos:
    def __init__(self, base: Path, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.mark = f"{os.getpid()}-{seed}"
        self.base = base
        self.out = base / "out"
        self.runtime, self.temporary = base / "runtime", base / "temporary"
        for place in (self.runtime, self.temporary):
            place.mkdir()
        self.file = base / "config.toml"
        self.file.write_text(as_toml(config(url, "large", "small")))
        self.env = environment(
            self.runtime,
            VIBE_HOME=str(base),
            TMPDIR=str(self.temporary),
            **{MARK: self.mark, f"{MARK}_OUT": str(self.out)},
        )
        self.sent: Counter[str] = Counter()
        self.left: Counter[str] = Counter()

    def start(self, program: str = PROGRAM) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, "run", "--quiet", "--", sys.executable, "-c", program],
            env=self.env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def round(self) -> None:
        runs = [self.start() for _ in range(self.random.choice((1, 2)))]
        for _ in range(self.random.choice((1, 2, 3))):
            PAUSE.wait(self.random.uniform(0.0, 1.5))
            number, share = self.random.choice(SIGNALS), self.random.random()
            found = sorted(processes(self.mark), key=lambda p: (p.role, p.pid))
            # A role first, as a run has one server and one program.
            roles = sorted({process.role for process in found})
            if found:
                role = roles[int(share * len(roles))]
                target = self.random.choice([p for p in found if p.role == role])
                send(target, number)
                self.sent[f"{number.name} {role}"] += 1
        # What was stopped hangs for a while, then goes on.
        PAUSE.wait(self.random.uniform(0.0, 1.0))
        for process in processes(self.mark):
            send(process, signal.SIGCONT)
        began = clock.elapsed()
        while processes(self.mark) and clock.elapsed() - began < GONE_SECONDS:
            for run in runs:
                run.poll()
            PAUSE.wait(0.05)
        for process in processes(self.mark):
            self.left[f"process of a {process.role}"] += 1
            send(process, signal.SIGKILL)
        for run in runs:
            run.wait()
        self.count_files()

    def count_files(self) -> None:
        """Count what is left after one more run has come and gone."""
        self.start("pass").wait()
        began = clock.elapsed()
        while processes(self.mark) and clock.elapsed() - began < GONE_SECONDS:
            PAUSE.wait(0.02)
        for place in (self.runtime / "vibe-mux", self.temporary):
            for file in place.iterdir() if place.exists() else ():
                self.left[f"{place.name}/*{file.suffix or file.name[:16]}"] += 1
                with suppress(OSError):
                    file.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as base,
        StandInServer([Model("large-model"), Model("small-model")]) as upstream,
    ):
        chaos = Chaos(Path(base), upstream.url, options.seed)
        for number in range(1, options.rounds + 1):
            chaos.round()
            if number % 10 == 0:
                print(
                    f"{number} rounds, left behind: {sum(chaos.left.values())}", flush=True
                )
        counts = [line.split() for line in chaos.out.read_text().splitlines()]
    for name, count in sorted(chaos.sent.items()):
        print(f"  {name}: {count}")
    good, bad = (sum(int(line[i]) for line in counts) for i in (0, 1))
    print(f"{len(counts)} programs ended well: {good} calls served, {bad} failed")
    print(f"left behind: {sum(chaos.left.values())} {dict(chaos.left) or ''}")
    return 1 if chaos.left else 0


if __name__ == "__main__":
    sys.exit(main())
