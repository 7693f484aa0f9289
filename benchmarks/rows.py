"""The rows of the table: their targets, and how each is measured."""
# ruff: noqa: RUF001 - figures have multiplication signs

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import serving
import starting
from environments import Environment
from workers import Figure, Worker, in_turn, model_server, ratios, workers

MOST_CALLS = {"litellm": 60, "multiplexer-llm": 150, "openai": 150}
"""Calls in one turn: slow contenders make fewer."""


@dataclass(frozen=True)
class Size:
    """The numbers of processes, rounds and calls of a run."""

    generations: int = 3
    """How often all processes are restarted: two of one program differ a little."""
    rounds: int = 12
    calls: int = 250
    threads: int = 16
    thread_calls: int = 60
    streams: int = 8
    first_contents: int = 40
    fail_overs: int = 150
    starts: int = 25
    memory: tuple[int, int] = (10_000, 1_000_000)
    served: int = 400

    @classmethod
    def quick(cls) -> Size:
        return cls(1, 2, 5, 2, 3, 1, 2, 3, 2, (20, 100), 5)


@dataclass(frozen=True)
class Row:
    """One measurement. `most` or `least` is its target, `then` the next target."""

    what: str
    figure: Figure | None
    unit: str = "×"
    most: float | None = None
    least: float | None = None
    then: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.figure is None or (self.most is None and self.least is None):
            return None
        if self.most is not None:
            return self.figure.median <= self.most
        return self.least is not None and self.figure.median >= self.least


@dataclass
class Results:
    """All measurements; `contenders` and `servers` hold a line of figures for each."""

    rows: list[Row] = field(default_factory=list)
    contenders: dict[str, dict[str, Figure]] = field(default_factory=dict)
    servers: dict[str, dict[str, Figure]] = field(default_factory=dict)


def measure(
    environments: dict[str, Environment],
    contenders: Sequence[str],
    size: Size,
    place: Path,
    only: Sequence[str] = (),
) -> Results:
    """Measure all parts, or those named in `only`."""
    results = Results()
    parts = {
        "calls": _calls,
        "streams": _streams,
        "choosing": _choosing,
        "starting": _starting,
        "serving": _serving,
        "memory": _memory,
    }
    for name, part in parts.items():
        if not only or name in only:
            part(results, environments, contenders, size, place)
    return results


def _calls(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],
    size: Size,
    place: Path,  # noqa: ARG001 - the parameters of every part
) -> None:
    cpu: dict[str, list[float]] = defaultdict(list)
    wall: dict[str, list[float]] = defaultdict(list)
    rate: dict[str, list[float]] = defaultdict(list)
    fail_over: list[float] = []

    def one(name: str, worker: Worker) -> None:
        count = min(size.calls, MOST_CALLS.get(name, size.calls))
        took = worker.do("calls", count=count)
        cpu[name].append(took["cpu"])
        wall[name].append(took["wall"])

    def many(name: str, worker: Worker) -> None:
        count = max(1, size.thread_calls // (10 if name == "litellm" else 1))
        took = worker.do("threads", count=count, threads=size.threads)
        rate[name].append(took["per_second"])

    def over(_name: str, worker: Worker) -> None:
        took = worker.do("failing_over", count=size.fail_overs)
        fail_over.append(
            statistics.median(took["first"]) / statistics.median(took["normal"])
        )

    threaded = {"requests", "httpx", "openai", "litellm", "mux of 2"}
    for generation in range(size.generations):
        chosen = {name: environments[name] for name in contenders}
        with model_server(environments["own"]) as base, workers(chosen, base) as running:
            for name, worker in running.items():
                worker.do("calls", count=min(size.calls, MOST_CALLS.get(name, size.calls)))
            title = f"calls, {generation + 1} of {size.generations}"
            in_turn(running, size.rounds, one, title)
            some = {name: running[name] for name in running if name in threaded}
            in_turn(some, max(1, size.rounds // 3), many, "threads")
            in_turn({"mux": running["mux of 2"]}, max(1, size.rounds // 4), over, "failing")

    for name in contenders:
        results.contenders[name] = {
            "CPU ÷ requests": Figure.of(ratios(cpu[name], cpu["requests"])),
            "CPU, µs": Figure.of([1e6 * value for value in cpu[name]]),
            "wall, µs": Figure.of([1e6 * value for value in wall[name]]),
        }
        if name in rate:
            results.contenders[name]["calls per second, 16 threads"] = Figure.of(rate[name])

    def ratio(of: str, to: str) -> Figure | None:
        return Figure.of(ratios(cpu[of], cpu[to])) if {of, to} <= cpu.keys() else None

    def later(name: str) -> Figure:
        pairs = zip(wall[name], wall["mux of 2"], strict=True)
        return Figure.of([1000 * (one - other) for one, other in pairs])

    results.rows += [
        Row("`mux.complete` ÷ `requests.Session().post`, pool of 2",
            ratio("mux of 2", "requests"), most=0.65, then=0.5),
        Row("the same, pool of 10", ratio("mux of 10", "requests"), most=0.65, then=0.5),
        Row("LiteLLM Router ÷ `mux.complete`",
            ratio("litellm", "mux of 2"), least=15, then=20),
        Row("multiplexer-llm ÷ `mux.complete`", ratio("multiplexer-llm", "mux of 2"), least=4),
        Row("openai SDK ÷ `mux.complete`", ratio("openai", "mux of 2"), least=3),
        Row("calls per second with 16 threads ÷ `requests`, wall",
            Figure.of(ratios(rate["mux of 2"], rate["requests"])), least=1.2),
        Row("first call that fails over ÷ a normal one, wall",
            Figure.of(fail_over), most=2.1),
        Row('a call with `state = "file"`, later than with memory, wall',
            later("mux with a file"), unit="ms", most=1),
        Row("the same, with a file that another process holds locked",
            later("mux with a locked file"), unit="ms", most=1),
    ]  # fmt: skip


def _streams(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],  # noqa: ARG001
    size: Size,
    place: Path,  # noqa: ARG001
) -> None:
    quotients: list[float] = []
    micros: list[float] = []
    delays: list[float] = []

    def one(_name: str, worker: Worker) -> None:
        took = worker.do("stream", short=100, long=600, count=size.streams)
        quotients.append(took["per_chunk"] / took["loads"])
        micros.append(1e6 * took["per_chunk"])

    for _ in range(size.generations):
        mux = {"mux of 2": environments["mux of 2"]}
        with model_server(environments["own"]) as base, workers(mux, base) as running:
            running["mux of 2"].do("stream", short=100, long=600, count=1)
            in_turn(running, size.rounds, one, "streams")
            took = running["mux of 2"].do("first_content", count=size.first_contents)
            delays += [1000 * value for value in took["delays"]]
    results.rows += [
        Row("stream, per chunk ÷ `json.loads` of the same chunk", Figure.of(quotients),
            most=3, then=2.5, note=f"{statistics.median(micros):.1f} µs a chunk"),
        Row("time to first content of an unchunked stream, wall", Figure.of(delays),
            unit="ms", most=5, note=f"p99 {_p99(delays):.1f} ms"),
    ]  # fmt: skip


def _choosing(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],  # noqa: ARG001
    size: Size,
    place: Path,  # noqa: ARG001
) -> None:
    took: dict[int, list[float]] = {10: [], 1000: []}

    def one(_name: str, worker: Worker) -> None:
        for pool, count in ((10, size.calls * 8), (1000, size.calls)):
            took[pool].append(1e6 * worker.do("choosing", size=pool, count=count)["cpu"])

    for _ in range(size.generations):
        with workers({"choosing": environments["own"]}, "") as running:
            running["choosing"].do("choosing", size=10, count=size.calls)
            in_turn(running, size.rounds, one, "choosing")
    results.rows += [
        Row("select + both updates, 10 endpoints", Figure.of(took[10]), unit="µs",
            most=10, then=5),
        Row("the same, 1,000 endpoints ÷ 10", Figure.of(ratios(took[1000], took[10])),
            most=30),
    ]  # fmt: skip


def _starting(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],  # noqa: ARG001
    size: Size,
    place: Path,
) -> None:
    took = starting.starts(environments["own"], size.starts, place)
    cpu = {name: [value for value, _ in values] for name, values in took.items()}
    wall = {name: [value for _, value in values] for name, values in took.items()}
    bare = statistics.median(cpu["nothing"])

    def less(name: str) -> list[float]:
        return [value - bare for value in cpu[name]]

    # Medians: a single start may be faster than the bare interpreter's median.
    requests = statistics.median(less("import requests"))

    def against_requests(name: str) -> Figure:
        return Figure.of([value / requests for value in less(name)])

    later = None
    if not environments["own"].paths:
        ready = starting.readiness(environments["own"], size.starts, place)
        alone = statistics.median(ready["alone"])
        later = Figure.of([value - alone for value in ready["run"]])
    results.rows += [
        Row("`import muxcore` ÷ `import requests`, less the bare interpreter",
            against_requests("import muxcore"), most=0.5, then=0.35),
        Row("`from muxcore import Multiplexer` ÷ the same",
            against_requests("from muxcore import Multiplexer")),
        Row("`vibe-mux check` ÷ `python -c pass`, wall",
            Figure.of(ratios(wall["vibe-mux check"], wall["nothing"])), most=10, then=6,
            note=f"{1000 * statistics.median(wall['vibe-mux check']):.0f} ms"),
        Row("`vibe-mux run -- vibe` ready later than `vibe` alone, wall", later, unit="ms",
            most=200, then=100, note="a stand-in for vibe; with a new server"),
    ]  # fmt: skip


def _serving(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],
    size: Size,
    place: Path,
) -> None:
    rows: dict[str, list[float]] = defaultdict(list)
    served = {"own": environments["own"]}
    if "litellm" in contenders:
        served["litellm"] = environments["litellm"]
    whole: serving.Times = defaultdict(list)
    first: serving.Times = defaultdict(list)
    each: serving.Times = defaultdict(list)
    for _ in range(size.generations):
        with ExitStack() as stack:
            base = stack.enter_context(model_server(environments["own"]))
            try:
                ways = stack.enter_context(serving.servers(served, base, place))
            except (OSError, AssertionError) as error:
                print(f"no server to measure: {error}", file=sys.stderr)
                break
            serving.answers(ways, max(1, size.served // 10))
            print("serving", file=sys.stderr)
            answers = serving.answers(ways, size.served)
            contents, pieces = serving.deliveries(ways, size.served)
        added, later = _added(answers), _added(pieces)
        rows["added"].append(added["vibe-mux serve"] / added["bare pass-through"])
        for api in serving.APIS:
            rows[f"{api} added"].append(added[api] / added["bare pass-through"])
            rows[f"{api} pieces"].append(later[api] / later["bare pass-through"])
        rows["pieces"].append(later["vibe-mux serve"] / later["bare pass-through"])
        if "LiteLLM's proxy" in added:
            rows["litellm"].append(added["LiteLLM's proxy"] / added["vibe-mux serve"])
        rows["first"].append(
            1000 * (_p99(contents["vibe-mux serve"]) - _p99(contents["the model itself"]))
        )
        for name in ways:
            whole[name] += answers[name]
            first[name] += contents[name]
            each[name] += pieces[name]
    for name, times in whole.items():
        results.servers[name] = {
            "whole answer, ms": Figure.of([1000 * value for value in times]),
            "first content, ms": Figure.of([1000 * value for value in first[name]]),
            "later content, ms": Figure.of([1000 * value for value in each[name]]),
        }

    def figure(name: str) -> Figure | None:
        return Figure.of(rows[name]) if rows[name] else None

    results.rows += [
        Row("server: added median ÷ a bare pass-through on the standard library's server",
            figure("added"), most=1.3, then=1.1),
        Row("the same for the Responses API", figure(f"{serving.RESPONSES} added"), most=1.3,
            then=1.1),
        Row("the same for the Messages API", figure(f"{serving.MESSAGES_WAY} added"), most=1.3,
            then=1.1),
        Row("the same, later pieces of a stream", figure("pieces")),
        Row("the same for the Responses API, later pieces of a stream",
            figure(f"{serving.RESPONSES} pieces")),
        Row("the same for the Messages API, later pieces of a stream",
            figure(f"{serving.MESSAGES_WAY} pieces")),
        Row("server: LiteLLM's proxy ÷ ours, added median", figure("litellm")),
        Row("server: first content of a stream, p99, later than without it",
            figure("first"), unit="ms", most=2, then=1),
    ]  # fmt: skip


def _added(times: serving.Times) -> dict[str, float]:
    """Return the median that each way adds to the model itself."""
    bare = statistics.median(times["the model itself"])
    return {name: statistics.median(each) - bare for name, each in times.items()}


def _memory(
    results: Results,
    environments: dict[str, Environment],
    contenders: Sequence[str],  # noqa: ARG001
    size: Size,
    place: Path,  # noqa: ARG001
) -> None:
    few, many = size.memory
    with workers({"memory": environments["own"]}, "") as running:
        print(f"memory, {many:,} calls", file=sys.stderr)
        early = running["memory"].do("remember", count=few)["peak"]
        late = running["memory"].do("remember", count=many - few)["peak"]
    results.rows.append(
        Row(
            f"memory after {many:,} calls ÷ after {few:,}",
            Figure.of([late / early]),
            most=1.05,
            note="peak; with answers from memory instead of the network",
        )
    )


def _p99(values: Sequence[float]) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[98]
