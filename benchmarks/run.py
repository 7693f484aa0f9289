"""Measure everything on loopback and write `docs/benchmarks.md`: `python3 benchmarks/run.py`.

It creates the environments that it needs, and takes a quarter of an hour. `--quick` takes
seconds, installs nothing, uses the packages of the running Python, and only checks that the
benchmarks work. `--only` names parts: calls, streams, choosing, starting, serving, memory.
"""

from __future__ import annotations

import argparse
import random  # noqa: TID251 - seeded
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import environments
import report
import rows
from contenders import CONTENDERS

DOCUMENT = environments.ROOT / "docs" / "benchmarks.md"
MODULE_OF = {"multiplexer-llm": "multiplexer_llm"}
OWN = ("mux of 2", "mux of 10", "mux with a file", "mux with a locked file")
IN_QUICK = ("http.client", "requests", "httpx", "openai", *OWN)
PARTS = ("calls", "streams", "choosing", "starting", "serving", "memory")


def main() -> None:
    options = _options()
    random.seed(options.seed)
    size = rows.Size.quick() if options.quick else rows.Size()
    if options.quick:
        own = environments.here()
        made = {name: own for name in IN_QUICK if _is_here(name)}
        versions: dict[str, str] = {}
    else:
        cache = options.cache / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        kinds = {name: environments.create(name, cache) for name in environments.PACKAGES}
        own = kinds["own"]
        made = {
            name: kinds[environments.ENVIRONMENT_OF.get(name, "own")] for name in CONTENDERS
        }
        versions = {}
        for environment in kinds.values():
            versions = environment.versions() | versions
    only = options.only or [
        part for part in PARTS if not options.quick or part != "serving"
    ]
    with tempfile.TemporaryDirectory() as place:
        results = rows.measure({**made, "own": own}, list(made), size, Path(place), only)
    date = f"{datetime.now(tz=UTC):%Y-%m-%d}"  # noqa: TID251 - the date of the run
    text = report.document(results, date, versions, quick=options.quick)
    out = options.out or (None if options.quick or options.only else DOCUMENT)
    if out is None:
        print(text)
    else:
        out.write_text(text, encoding="utf-8")
        print(f"written: {out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="measure these parts")
    parser.add_argument("--out", type=Path, help=f"default: docs/{DOCUMENT.name}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of turns")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vibe-mux-benchmarks",
        help="where the environments are kept",
    )
    return parser.parse_args()


def _is_here(contender: str) -> bool:
    if contender in OWN or contender == "http.client":
        return True
    return find_spec(MODULE_OF.get(contender, contender)) is not None


if __name__ == "__main__":
    main()
