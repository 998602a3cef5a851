"""Tables for the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text


class TextTable(Table):
    """A table whose cells and headers are text: brackets in them are not styles."""

    def __init__(self, *headers: str, **options: Any) -> None:
        if "title" in options:
            options["title"] = Text(options["title"], style="table.title")
        super().__init__(**options)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """Adds a column."""
        super().add_column(Text(header), footer, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row of strings."""
        super().add_row(*(Text(cell) for cell in cells), **options)
