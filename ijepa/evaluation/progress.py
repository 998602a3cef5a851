"""How far something long has come: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

ItemT = TypeVar("ItemT")
EVERY_SECONDS = 10.0


def progress(items: Iterable[ItemT], title: str, total: int) -> Iterator[ItemT]:
    """Yields ``items``, of which there are ``total``; silent without a ``title``."""
    console = Console(stderr=True)
    if not title:
        yield from items
    elif console.is_terminal:
        yield from track(items, title, total, console=console, transient=True)
    else:
        printed = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - printed >= EVERY_SECONDS:
                printed = time.monotonic()
                print(f"{title}: {done} of {total}", flush=True)
            yield item
