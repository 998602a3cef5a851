"""Damages the contents of a file, as disks, networks and attackers do."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with bits flipped, cut, zeroed, repeated, or with a number of its header blown up."""
    kind = rng.integers(6)
    content = bytearray(data)
    if kind == 0:
        return bytes(content[: rng.integers(len(content) + 1)])
    if kind == 1:  # a few bits anywhere
        for at in rng.integers(0, len(content), rng.integers(1, 9)):
            content[at] ^= 1 << rng.integers(8)
    elif kind == 2:  # the header, where sizes and types are
        for at in rng.integers(0, min(len(content), 200), rng.integers(1, 5)):
            content[at] = rng.integers(256)
    elif kind == 3:
        start, length = rng.integers(len(content)), rng.integers(1, 512)
        content[start : start + length] = bytes(min(int(length), len(content) - int(start)))
    elif kind == 4:
        start, length = rng.integers(len(content)), int(rng.integers(1, 512))
        content[start:start] = content[start : start + length]
    else:  # 32 bits that say: as many as there can be
        start = int(rng.integers(max(min(len(content), 400) - 4, 1)))
        content[start : start + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


STRANGE = [None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "", "text", "\0\n", "é\ud800", "${seed}", [],
           {}, [[1]], {"a": {"b": 1}}, [None], {"": []}]  # fmt: skip
"""Values of types, or of sizes, that nobody expects."""


def damaged_text(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` damaged as any file, or as text: nested, huge, in another encoding, or with values of other types."""
    kind = rng.integers(6)
    at = int(rng.integers(len(data) + 1))
    if kind == 0:
        return damaged(data, rng)
    if kind == 1:
        opening = [b"[", b'{"a":', b"{a: ", b"- ", b"("][rng.integers(5)]
        return data[:at] + opening * int(10 ** rng.uniform(1, 5)) + data[at:]
    if kind == 2:
        return data[:at] + [b"1", b"x", b",", b'"', b"\0"][rng.integers(5)] * int(10 ** rng.uniform(1, 6)) + data[at:]
    if kind == 3:
        return data.decode().encode(["utf-16", "utf-32", "utf-8-sig"][rng.integers(3)])
    return _other_value(data.decode(), rng).encode(errors="surrogatepass")


def _other_value(text: str, rng: np.random.Generator) -> str:
    """A JSON or YAML text with another value somewhere; a table with another cell."""
    value = STRANGE[rng.integers(len(STRANGE))]
    try:
        contents = yaml.safe_load(text)
    except yaml.YAMLError:
        contents = None
    if not isinstance(contents, dict):
        rows = [line.split(",") for line in text.split("\n")]
        row = rows[rng.integers(len(rows))]
        row[rng.integers(len(row))] = str(value)
        return "\n".join(",".join(row) for row in rows)
    places = list(_places(contents))
    holder, key = places[rng.integers(len(places))]
    holder[key] = value
    comments = [line for line in text.split("\n") if line.startswith("#")]
    return "\n".join([*comments, json.dumps(contents)])  # valid YAML, too


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
