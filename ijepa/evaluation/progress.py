"""Progress of a long loop: a bar in a terminal, otherwise a line every few seconds."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track

ItemT = TypeVar("ItemT")
EVERY_SECONDS = 10.0
"""Between lines."""


def progress(items: Iterable[ItemT], title: str, total: int) -> Iterator[ItemT]:
    """Yields the ``total`` items, and shows progress unless ``title`` is empty."""
    console = Console(stderr=True)
    if not title:
        yield from items
    elif console.is_terminal:
        yield from track(items, escape(title), total, console=console, transient=True)
    else:
        printed = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - printed >= EVERY_SECONDS:
                printed = time.monotonic()
                print(f"{title}: {done} of {total}", flush=True)
            yield item
