#!/usr/bin/env python3
"""Do others read our tables, and do they read the same?

Opens each Delta table with three readers at one pinned version and fails when they disagree about columns, rows, cost
or ids, when an id stands twice, or when a whole row cannot be read.

    check.py TABLE_DIR... [--rows N] [--cost-sum USD] [--told-again N] [--watch SECONDS] [--every-version] [--cleaned]
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import chdb
import polars
from deltalake import DeltaTable, QueryBuilder

# What is unique in a table. A table that is not named here is judged by the columns it has.
KEYS = {
    "observations": ("trace_id", "id"),
    "observation_io": ("trace_id", "id"),
    "trace_facts": ("trace_id",),
    "scores": ("id",),
    "ledger": (),
}
COST = "total_cost"
# Rows of which more was said after they were written end their names so.
TOLD_AGAIN = " told again"
PASSES_APART_SECONDS = 0.2


@dataclass(frozen=True)
class Answer:
    """What one reader says about one version of a table."""

    columns: tuple
    rows: int
    ids: int
    cost: Decimal
    told_again: int
    sampled: int


class Disagreement(Exception):
    pass


def main():
    arguments = parse_arguments()
    tables = [Path(table).resolve() for table in arguments.tables]
    # ClickHouse reads only files below the working directory.
    os.chdir("/")
    if arguments.cleaned:
        for table in tables:
            if not begins_with_checkpoint(table):
                print(f"FAILED: {table}: its log does not begin with a checkpoint", file=sys.stderr)
                return 1
    last_version = dict.fromkeys(tables, -1)
    until = time.monotonic() + arguments.watch
    passes = 0
    try:
        while True:
            is_last = time.monotonic() >= until
            for table in tables:
                version, answer = check(table, arguments.sample)
                if version < last_version[table]:
                    raise Disagreement(f"{table}: version {version} after version {last_version[table]}")
                if version != last_version[table] or is_last:
                    report(table, version, answer)
                last_version[table] = version
                if is_last:
                    check_expected(table, answer, arguments)
            passes += 1
            if is_last:
                if arguments.every_version:
                    for table in tables:
                        check_every_version(table)
                break
            time.sleep(PASSES_APART_SECONDS)
    except Disagreement as disagreement:
        print(f"FAILED: {disagreement}", file=sys.stderr)
        return 1
    print(f"ok: {len(tables)} tables, {passes} passes, three readers agree")
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="TABLE_DIR")
    parser.add_argument("--rows", type=int, help="rows that every table must have in the end")
    parser.add_argument("--cost-sum", type=Decimal, help=f"sum of {COST} that tables with costs must have in the end")
    parser.add_argument("--told-again", type=int, help=f"rows whose names must end in {TOLD_AGAIN!r} in the end")
    parser.add_argument("--every-version", action="store_true", help="fail if an id stands twice in any version")
    parser.add_argument("--sample", type=int, default=100, help="rows read with all their columns (default 100)")
    parser.add_argument("--cleaned", action="store_true", help="fail if the log still has its first commit")
    parser.add_argument("--watch", type=float, default=0, metavar="SECONDS", help="read again and again for so long")
    return parser.parse_args()


def begins_with_checkpoint(table):
    """Whether whoever reads the table has to begin with a checkpoint."""
    names = sorted(entry.name for entry in (table / "_delta_log").iterdir() if entry.name[0].isdigit())
    commits = [name for name in names if name.endswith(".json")]
    checkpoints = [name for name in names if name.endswith(".checkpoint.parquet")]
    return bool(checkpoints) and not (commits and commits[0] == f"{0:020}.json")


def check(table, sample):
    """One version, chosen by the first reader and asked of all three."""
    try:
        opened = DeltaTable(str(table))
    except Exception as error:
        raise Disagreement(f"{table}: delta-rs cannot open it: {first_line(error)}") from error
    version = opened.version()
    columns = tuple(field.name for field in opened.schema().fields)
    key = key_of(table, columns)
    answers = {}
    for name, read in (("delta-rs", read_delta_rs), ("polars", read_polars), ("chdb", read_chdb)):
        try:
            answers[name] = read(str(table), version, columns, key, sample)
        except Exception as error:  # whatever a reader raises, it means that it cannot read us
            raise Disagreement(f"{table} version {version}: {name} cannot read it: {first_line(error)}") from error
    if len(set(answers.values())) != 1:
        lines = "\n".join(f"  {name}: {differing(answer, answers)}" for name, answer in answers.items())
        raise Disagreement(f"{table} version {version}: readers disagree\n{lines}")
    answer = answers["delta-rs"]
    if key and answer.ids != answer.rows:
        raise Disagreement(f"{table} version {version}: {answer.rows} rows but {answer.ids} distinct ({', '.join(key)})")
    return version, answer


def check_every_version(table):
    """Each id once in every version that there ever was, also in those nobody looked at while they were the newest."""
    last = DeltaTable(str(table)).version()
    for version in range(last + 1):
        opened = DeltaTable(str(table), version=version)
        columns = tuple(field.name for field in opened.schema().fields)
        key = key_of(table, columns)
        table_then = QueryBuilder().register("t", opened).execute(totals_sql("t", columns, key)).read_all()
        rows, ids, _, _ = first_row(table_then)
        if key and ids != rows:
            raise Disagreement(f"{table} version {version}: {rows} rows but {ids} distinct ({', '.join(key)})")
    print(f"{table}: each id once in all {last + 1} versions", flush=True)


def key_of(table, columns):
    key = KEYS.get(table.name)
    if key is None:
        key = tuple(name for name in ("trace_id", "id") if name in columns)
    missing = [name for name in key if name not in columns]
    if missing:
        raise Disagreement(f"{table}: no column {', '.join(missing)}")
    return key


def read_delta_rs(table, version, columns, key, sample):
    opened = DeltaTable(table, version=version)
    queries = QueryBuilder().register("t", opened)
    rows, ids, cost, told_again = first_row(queries.execute(totals_sql("t", columns, key)).read_all())
    sampled = queries.execute(f"SELECT * FROM t LIMIT {sample}").read_all().num_rows
    return Answer(tuple(sorted(columns)), rows, ids, money(cost), told_again, sampled)


def read_polars(table, version, columns, key, sample):
    frame = polars.scan_delta(table, version=version)
    totals = [polars.len().alias("rows")]
    totals.append(polars.struct(key).n_unique().alias("ids") if key else polars.len().alias("ids"))
    if COST in columns:
        totals.append(polars.col(COST).sum().alias("cost"))
    if "name" in columns:
        totals.append(polars.col("name").str.ends_with(TOLD_AGAIN).sum().alias("told_again"))
    total = frame.select(totals).collect().row(0, named=True)
    ids = total["ids"] if total["rows"] else 0
    names = frame.collect_schema().names()
    sampled = frame.head(sample).collect().height
    return Answer(tuple(sorted(names)), total["rows"], ids, money(total.get("cost")), total.get("told_again") or 0, sampled)


def read_chdb(table, version, columns, key, sample):
    source = f"deltaLakeLocal('{table}')"
    pinned = f"SETTINGS delta_lake_snapshot_version = {version}"
    total = chdb.query(f"{totals_sql(source, columns, key)} {pinned}", "ArrowTable")
    rows, ids, cost, told_again = first_row(total)
    sampled = chdb.query(f"SELECT * FROM {source} LIMIT {sample} {pinned}", "ArrowTable")
    described = chdb.query(f"DESCRIBE TABLE {source} {pinned}", "ArrowTable")
    names = [text(name) for name in described.column("name").to_pylist()]
    return Answer(tuple(sorted(names)), rows, ids, money(cost), told_again, sampled.num_rows)


def totals_sql(source, columns, key):
    # Two steps instead of count(DISTINCT (a, b)), which the two SQL readers write differently.
    cost = f"sum({COST})" if COST in columns else "NULL"
    told_again = f"sum(CASE WHEN name LIKE '%{TOLD_AGAIN}' THEN 1 ELSE 0 END)" if "name" in columns else "0"
    if not key:
        return f"SELECT count(*) AS r, count(*) AS i, {cost} AS c, {told_again} AS t FROM {source}"
    keys = ", ".join(key)
    per_id = f"sum({COST})" if COST in columns else "NULL"
    grouped = f"SELECT {keys}, count(*) AS n, {per_id} AS cost, {told_again} AS told FROM {source} GROUP BY {keys}"
    cost = "sum(cost)" if COST in columns else "NULL"
    return f"SELECT sum(n) AS r, count(*) AS i, {cost} AS c, sum(told) AS t FROM ({grouped}) AS g"


def first_row(table):
    rows, ids, cost, told_again = (table.column(name)[0].as_py() for name in ("r", "i", "c", "t"))
    return int(rows or 0), int(ids or 0), cost, int(told_again or 0)


def money(amount):
    return Decimal(0 if amount is None else text(amount)).quantize(Decimal("1e-12"))


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def first_line(error):
    """What is wrong, without the reader's own stack."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def differing(answer, answers):
    """Only what is not the same everywhere: columns are many."""
    fields = ("columns", "rows", "ids", "cost", "told_again", "sampled")
    differ = [name for name in fields if len({getattr(other, name) for other in answers.values()}) > 1]
    return ", ".join(f"{name}={getattr(answer, name)}" for name in differ)


def report(table, version, answer):
    print(f"{table} version {version}: {answer.rows} rows, {answer.ids} ids, {answer.cost.normalize():f} USD", flush=True)


def check_expected(table, answer, arguments):
    if arguments.rows is not None and answer.rows != arguments.rows:
        raise Disagreement(f"{table}: {answer.rows} rows, expected {arguments.rows}")
    if arguments.cost_sum is not None and COST in answer.columns and answer.cost != arguments.cost_sum:
        raise Disagreement(f"{table}: costs {answer.cost} USD, expected {arguments.cost_sum}")
    if arguments.told_again is not None and "name" in answer.columns and answer.told_again != arguments.told_again:
        raise Disagreement(f"{table}: {answer.told_again} rows were told again, expected {arguments.told_again}")


if __name__ == "__main__":
    sys.exit(main())
