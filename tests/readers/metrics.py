#!/usr/bin/env python3
"""Does DuckDB answer our metrics questions as we do?

    metrics.py CASES.json

CASES.json has the Parquet files of the table and, for each case, a statement over the view `obs` and our rows: keys, then
measures. Counts, tokens and money must be equal to the last digit; a measure given as ["~", error, value] may differ by
that share of it.
"""

import json
import math
import sys
from decimal import Decimal

import duckdb

TEXT_OF_NOTHING = "\0"


def main():
    with open(sys.argv[1]) as file:
        given = json.load(file)
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    files = ", ".join("'" + path.replace("'", "''") + "'" for path in given["files"])
    duck.execute(f"CREATE TABLE obs AS SELECT * FROM read_parquet([{files}], hive_partitioning = false)")
    failed = 0
    for number, case in enumerate(given["cases"]):
        keys = case["keys"]
        found = indexed([list(row) for row in duck.execute(case["sql"]).fetchall()], keys)
        ours = indexed(case["rows"], keys)
        wrong = differences(ours, found)
        if wrong:
            failed += 1
            print(f"FAILED case {number}: {case['sql']}\n  " + "\n  ".join(wrong[:5]), file=sys.stderr)
    rows = duck.execute("SELECT count(*) FROM obs").fetchone()[0]
    if failed:
        print(f"FAILED: {failed} of {len(given['cases'])} questions", file=sys.stderr)
        return 1
    print(f"ok: DuckDB answers {len(given['cases'])} questions over {rows} rows as we do")
    return 0


def indexed(rows, keys):
    return {tuple(TEXT_OF_NOTHING if key is None else str(key) for key in row[:keys]): row[keys:] for row in rows}


def differences(ours, found):
    wrong = [f"{key} is only ours" for key in ours.keys() - found.keys()]
    wrong += [f"{key} is only DuckDB's" for key in found.keys() - ours.keys()]
    for key in ours.keys() & found.keys():
        for place, (one, other) in enumerate(zip(ours[key], found[key], strict=True)):
            if not same(one, other):
                wrong.append(f"{key} measure {place}: {one} here, {other} in DuckDB")
    return wrong


def same(ours, found):
    if isinstance(ours, list):
        _, error, value = ours
        if value is None or found is None:
            return value is None and found is None
        return math.isclose(float(value), float(found), rel_tol=error, abs_tol=1e-9)
    if ours is None or found is None:
        return ours is None and found is None
    return Decimal(str(ours)) == Decimal(str(found))


if __name__ == "__main__":
    sys.exit(main())
