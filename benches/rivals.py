#!/usr/bin/env python3
"""The same questions to DuckDB and chdb, over the same Parquet files, in this process.

    rivals.py < QUESTIONS.json > TIMES.json

QUESTIONS.json has the files of each table, how often each question is asked after the first time, and the questions: a
name and a statement for each engine, in which {observations}, {observation_io} and {scores} stand for the tables.
TIMES.json has, for each question and engine, the milliseconds of the first time (the connection may have read the files
for other questions) and of the others, sorted.
"""

import json
import os
import sys
import time

import chdb.session
import duckdb

# As in answers.rs.
PATIENCE_S = 6
FEW = 3


def main():
    given = json.load(sys.stdin)
    times = {}
    for engine in (DuckDb(), ChDb()):
        tables = {table: engine.table(files) for table, files in given["tables"].items()}
        for question in given["questions"]:
            statement = question[engine.name].format(**tables)
            first, others = timed(engine.ask, statement), again(engine.ask, statement, given["runs"])
            times.setdefault(question["name"], {})[engine.name] = {"first": first, "others": sorted(others)}
    json.dump(times, sys.stdout)


def again(ask, statement, runs):
    """As often as we are asked: `runs` times, or as often as fits into the patience, but a few times at least."""
    times, began = [], time.perf_counter()
    while len(times) < runs and (len(times) < FEW or time.perf_counter() - began < PATIENCE_S):
        times.append(timed(ask, statement))
    return times


def timed(ask, statement):
    began = time.perf_counter()
    ask(statement)
    return (time.perf_counter() - began) * 1e3


class DuckDb:
    name = "duckdb"

    def __init__(self):
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    def table(self, files):
        names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        return f"read_parquet([{names}], hive_partitioning = false)"

    def ask(self, statement):
        return self.connection.sql(statement).to_arrow_table()


class ChDb:
    name = "chdb"

    def __init__(self):
        self.session = chdb.session.Session()
        self.session.query("SELECT 1")

    def table(self, files):
        # A name that begins with a brace is no path.
        root = os.path.commonpath(files) if len(files) > 1 else os.path.dirname(files[0])
        names = ",".join(os.path.relpath(file, root) for file in files)
        names = f"{root}/{{{names}}}" if len(files) > 1 else f"{root}/{names}"
        return f"file('{names}', Parquet)"

    def ask(self, statement):
        return self.session.query(statement, "Arrow")


main()
