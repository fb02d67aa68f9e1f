"""Reads the curves of a training."""

import csv


def curves_of(content):
    """Turn the bytes of curves.csv into {column: [value of each epoch]}."""
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert [int(row.pop("epoch")) for row in rows] == list(range(1, len(rows) + 1))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
