"""Measure fieldguide side by side with the tools a user would take instead; write table and chart.

    make bench         every row, within half an hour on 2 cores
    make bench-full    the same with more repeats and larger work

    python benchmarks/bench.py input_speed epoch_speed    # measure some rows and keep the others
    python benchmarks/bench.py --show                     # only rewrite table and chart

Writes benchmarks/results.json (every repeat), docs/images/benchmarks.png, and the text between the
markers of docs/benchmarks.md and the README. Close other programs first. The other tools are
installed in an environment of their own, which `make bench` makes; the variable PEERS is its path.
"""

from __future__ import annotations

import argparse
import importlib
import time

import chart
import results_file
import table
from contender import ROOT
from side_by_side import Row

MODULES = (
    *("prepare_speed", "input_speed", "epoch_speed", "time_to_accuracy"),
    *("cold_start", "experiment_cost", "stage_memory"),
)
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images" / "benchmarks.png"


def main() -> None:
    """Measure the rows that are asked for and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="rows", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--full", action="store_true", help="more repeats, larger work")
    parser.add_argument("--show", action="store_true", help="measure nothing; rewrite table, chart")
    options = parser.parse_args()
    unknown = [name for name in options.modules if name not in MODULES]
    if unknown:
        parser.error(f"found {', '.join(unknown)}; allowed: {', '.join(MODULES)}")
    kept = results_file.load()
    wanted = [] if options.show else options.modules or MODULES
    begin = time.perf_counter()
    for name in wanted:
        kept = results_file.merge(kept, measure(name, full=options.full), MODULES)
        results_file.save(kept)  # after each module, so that an interruption loses only one
        write(kept)
    if wanted:
        print(f"\nMeasured in {(time.perf_counter() - begin) / 60:.1f} minutes.")
    if not kept:
        parser.error(f"{results_file.FILE.relative_to(ROOT)}: has no results; run `make bench`")
    write(kept)
    print(f"Table    {PAGE.relative_to(ROOT)}     Chart  {PICTURE.relative_to(ROOT)}")
    print(f"Repeats  {results_file.FILE.relative_to(ROOT)}")


def measure(name: str, *, full: bool) -> list[results_file.Result]:
    """Run one module, print its rows and return them."""
    print(f"\n{name}", flush=True)
    machine = results_file.this_machine(full=full)
    begin = time.perf_counter()
    rows: list[Row] = importlib.import_module(name).rows(quick=not full)
    for row in rows:
        print(f"  {row.work}: {table.ratio(row)}, target {table.target(row)}: {table.verdict(row)}")
    print(f"  {time.perf_counter() - begin:.0f} s", flush=True)
    return [results_file.Result(name, row, machine) for row in rows]


def write(kept: list[results_file.Result]) -> None:
    """Write the tables of docs/benchmarks.md and the README, and the chart."""
    table.insert(PAGE, table.full_table(kept))
    table.insert(ROOT / "README.md", table.short_table(kept))
    chart.write(kept, PICTURE)


if __name__ == "__main__":
    main()
