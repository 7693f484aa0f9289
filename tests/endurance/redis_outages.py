"""A real Redis is stopped, killed, emptied and failed over amid calls; others' limits, kills, speed.

    python tests/endurance/redis_outages.py outages --calls 400
    python tests/endurance/redis_outages.py limits --rounds 50
    python tests/endurance/redis_outages.py kills --kills 1000
    python tests/endurance/redis_outages.py speed --seconds 5

It needs redis-server or valkey-server on the path, uses loopback alone, and ends only what it
started. An outage fails it if a call fails, if one takes 60 ms longer than the longest without
an outage, or if the state is not whole two seconds after the server is back.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from muxcore import Multiplexer
from muxcore.board.engine.redis import RedisBoard
from muxcore.shell import clock
from muxcore.standin import Model, StandInServer, rate_limited
from tests.board.configs import two_models
from tests.board.redis.server import Failover, RedisServer
from tests.processes import PYTHONPATH
from tests.waiting import wait_until

TAG = "vibe-mux:{default}:"
VARIABLE = "VIBE_MUX_REDIS_URL"
PING = [{"role": "user", "content": "ping"}]
PROCESSES, THREADS = 8, 4
LONGER, WHOLE = 0.060, 2.0
CAP = {"model": "alpha", "max_concurrent": 3}
OBEYS = """
import json, sys, time
from muxcore import Multiplexer
with Multiplexer.from_config(json.loads(sys.argv[1])) as multiplexer:
    multiplexer.complete([{"role": "user", "content": "ping"}])
    for line in sys.stdin:
        while multiplexer.state["alpha"].health.limited is not None: time.sleep(0.001)
        print("ready", flush=True)
        while multiplexer.state["alpha"].health.limited is None: time.sleep(0.001)
        print(repr(time.monotonic()), flush=True)
"""
HOLDS = """
import os, sys, time
from muxcore.board.engine.redis import RedisBoard
for line in sys.stdin:
    place = line.strip()
    # The imports are paid once.
    if os.fork() == 0:
        board = RedisBoard(now=None, environment=os.environ, lease_ms=1000, timeout_ms=20000)
        lease = board.take(place, 1)
        os.write(1, b"%d %d\\n" % (os.getpid(), lease.granted))
        while True:
            board.renew()
            time.sleep(0.05)
"""
SPEEDS = """
import json, sys, time
from muxcore import Multiplexer
from muxcore.board.engine.redis import RedisBoard
import os
kind, seconds = sys.argv[2], float(sys.argv[3])
if kind == "leases":
    board = RedisBoard(now=None, environment=os.environ, timeout_ms=20000)
    place = f"of {os.getpid()}"
    act = lambda: board.give_back(board.take(place, 3))
else:
    multiplexer = Multiplexer.from_config(json.loads(sys.argv[1]))
    act = lambda: multiplexer.complete([{"role": "user", "content": "ping"}])
act()
print("ready", flush=True)
sys.stdin.readline()
done, end = 0, time.monotonic() + seconds
while time.monotonic() < end:
    act()
    done += 1
print(done, flush=True)
os._exit(0)
"""


def config(server: StandInServer, *pool: dict[str, Any], timeout_ms: int) -> dict[str, Any]:
    options = {"timeout_ms": timeout_ms}
    members = (*pool, {"model": "beta"})
    return two_models(server.url, *members, state="redis", state_options=options)


def start(url: str, code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": PYTHONPATH, VARIABLE: url},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def timed(multiplexer: Multiplexer, calls: int) -> tuple[list[float], int]:
    """Make calls in several threads; return how long each took, and how many failed."""
    failed: list[Exception] = []

    def one(_: int) -> float:
        began = clock.elapsed()
        try:
            multiplexer.complete(PING)
        except Exception as error:  # noqa: BLE001 - each is counted
            failed.append(error)
        threading.Event().wait(0.01)
        return clock.elapsed() - began - 0.01

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(one, range(calls))), len(failed)


def outage(kind: str, calls: int) -> bool:
    """Make the outage amid calls; return whether all was well."""
    alpha, beta = Model("model-a"), Model("model-b")
    failover = Failover() if kind == "failover" else None
    redis = failover.first if failover else RedisServer()
    url = failover.url if failover else redis.url
    with StandInServer([alpha, beta]) as server:
        made = config(server, CAP, timeout_ms=50)
        environment = {VARIABLE: url}
        one, two = (Multiplexer.from_config(made, env=environment) for _ in range(2))
        for multiplexer in (one, two):
            multiplexer.complete(PING)
            wait_until(lambda m=multiplexer: m.state["alpha"].leases is not None)  # type: ignore[misc]
        usual, _ = timed(one, calls)
        back: list[float] = []

        def break_it() -> None:
            threading.Event().wait(0.2)
            if kind == "stop":
                redis.stop()
                threading.Event().wait(1.0)
                redis.go_on()
            elif failover:
                failover.over()
            else:
                redis.kill()
                threading.Event().wait(0.5)
                redis.start()
            back.append(clock.elapsed())

        breaking = threading.Thread(target=break_it)
        breaking.start()
        took, failed = timed(one, calls)
        breaking.join()
        alpha.then(rate_limited(timedelta(seconds=90)))
        wait_until(lambda: two.complete(PING) and two.state["alpha"].health.limited)
        wait_until(lambda: one.state["alpha"].health.limited is not None)
        newcomer = Multiplexer.from_config(made, env=environment)
        wait_until(lambda: newcomer.state["alpha"].health.limited is not None)
        whole = clock.elapsed() - back[0]
        for multiplexer in (one, two, newcomer):
            multiplexer.close()
    (failover or redis).close()
    longer = max(took) - max(usual)
    print(
        f"{kind}: {failed} of {calls} calls failed; usual median"
        f" {statistics.median(usual) * 1000:.0f} ms, longest {max(usual) * 1000:.0f}; with the"
        f" outage median {statistics.median(took) * 1000:.0f}, longest {max(took) * 1000:.0f};"
        f" whole after {whole:.2f} s",
        flush=True,
    )
    return not failed and longer <= LONGER and whole <= WHOLE


def outages(options: argparse.Namespace) -> int:
    kinds = ("stop", "kill", "failover")
    well = [outage(kind, options.calls) for kind in kinds]
    return int(not all(well))


def limits(options: argparse.Namespace) -> int:
    """How long after a 429 the seven others know of it."""
    alpha, redis = Model("model-a"), RedisServer()
    heard: list[float] = []
    with StandInServer([alpha, Model("model-b")]) as server:
        made = config(server, {"model": "alpha"}, timeout_ms=5000)
        others = [start(redis.url, OBEYS, json.dumps(made)) for _ in range(PROCESSES - 1)]
        with Multiplexer.from_config(made, env={VARIABLE: redis.url}) as one:
            for _ in range(options.rounds):
                one.reset()
                for process in others:
                    tell(process)
                assert {line_of(process) for process in others} == {"ready"}
                one.complete(PING)
                alpha.then(rate_limited(timedelta(seconds=90)))
                one.complete(PING)
                met = clock.elapsed()
                heard += [float(line_of(process)) - met for process in others]
        for process in others:
            process.communicate()
    redis.close()
    ordered = sorted(heard)
    print(
        f"{len(heard)} times a limit was heard: median {statistics.median(heard) * 1000:.1f} ms,"
        f" of 99% within {ordered[int(len(heard) * 0.99)] * 1000:.1f},"
        f" longest {ordered[-1] * 1000:.1f}"
    )
    return int(ordered[-1] > 0.05)


def kills(options: argparse.Namespace) -> int:
    """Kill holders of a slot while they renew it; how long until it is free."""
    redis = RedisServer()
    environment = {VARIABLE: redis.url}
    board = RedisBoard(now=clock.now, environment=environment, timeout_ms=20_000)
    holds = start(redis.url, HOLDS)
    longest, latest_end = 0.0, 0.0
    batch = 50
    for done in range(0, options.kills, batch):
        places = [f"{done + n}" for n in range(batch)]
        holders: list[int] = []
        for place in places:
            tell(holds, place)
            pid, granted = line_of(holds).split()
            assert granted == "1"
            holders.append(int(pid))
        waiting = {place: board.take(place, 1) for place in places}
        assert not any(lease.granted for lease in waiting.values())
        killed: dict[str, float] = {}
        with redis.client() as client:
            for place, holder in zip(places, holders, strict=True):
                os.kill(holder, signal.SIGKILL)
                killed[place] = clock.elapsed()
                latest_end = max(latest_end, lease_left(client, place))
        while waiting:
            board.renew()
            for place, lease in tuple(waiting.items()):
                if board.take(place, 1, lease.ticket).granted:
                    longest = max(longest, clock.elapsed() - killed[place])
                    board.give_back(lease)
                    del waiting[place]
    holds.kill()
    holds.wait()
    board.close()
    with redis.client() as client:
        left = client.keys("*lane:*")
    redis.close()
    print(
        f"{options.kills} kills with lease_ms 1000: a lease ended at most"
        f" {latest_end * 1000:.0f} ms after the death by the server's clock; who waited had the"
        f" slot after at most {longest * 1000:.0f} ms; {len(left)} leases are left"
    )
    return int(bool(left) or latest_end > 1 or longest > 1.25)


def lease_left(client: Any, place: str) -> float:
    """Return for how many seconds from now the holder of a place keeps it unless it renews."""
    (first,) = client.zrange(f"{TAG}lane:{place}", 0, 0)
    holder = first.partition(b":")[0]
    seconds, microseconds = client.time()
    end = float(client.zscore(f"{TAG}holders", holder)) / 1000
    return end - float(seconds) - float(microseconds) / 1e6


def speed(options: argparse.Namespace) -> int:
    """Calls of eight processes, with and without a cap, and leases alone."""
    redis = RedisServer()
    with StandInServer([Model("model-a"), Model("model-b")]) as server:
        pools: dict[str, Callable[[], tuple[dict[str, Any], ...]]] = {
            "uncapped": lambda: ({"model": "alpha"},),
            "capped": lambda: ({"model": "alpha", "max_concurrent": 1000},),
            "leases": lambda: ({"model": "alpha"},),
        }
        for kind, pool in pools.items():
            made = json.dumps(config(server, *pool(), timeout_ms=5000))
            seconds = str(options.seconds)
            processes = [
                start(redis.url, SPEEDS, made, kind, seconds) for _ in range(PROCESSES)
            ]
            assert {line_of(process) for process in processes} == {"ready"}
            with redis.client() as client:
                client.config_resetstat()
                before = client.info("cpu")
                for process in processes:
                    tell(process)
                done = sum(int(line_of(process)) for process in processes)
                about, after = client.info("commandstats"), client.info("cpu")
            for process in processes:
                process.communicate()
            used = sum(after[n] - before[n] for n in ("used_cpu_user", "used_cpu_sys"))
            scripts = about.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
            print(
                f"{kind}: {done / options.seconds:.0f}/s in {PROCESSES} processes;"
                f" {scripts['calls']} scripts of {scripts['usec'] / max(1, scripts['calls']):.0f}"
                f" us; the Redis used {used / options.seconds:.0%} of a core",
                flush=True,
            )
    redis.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="A Redis board under stress.")
    commands = parser.add_subparsers(required=True)
    for run, name, default in (
        (outages, "calls", 400),
        (limits, "rounds", 50),
        (kills, "kills", 1000),
        (speed, "seconds", 5),
    ):
        command = commands.add_parser(run.__name__)
        command.add_argument(f"--{name}", type=int, default=default)
        command.set_defaults(run=run)
    options = parser.parse_args()
    result: int = options.run(options)
    return result


if __name__ == "__main__":
    sys.exit(main())
