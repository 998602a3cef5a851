"""Tables for the terminal."""

import io

from rich.console import Console

from ijepa.util.tables import TextTable


def test_brackets_are_text():
    """As in task=[knn], a file called [red].jpg, or a class of that name."""
    table = TextTable("[task]", "[/b]", title="sweep of [bold]")
    table.add_column("[red]")
    table.add_row("[knn]", "[logistic]", "[/]", end_section=True)
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    for text in ("[task]", "[/b]", "[bold]", "[red]", "[knn]", "[logistic]", "[/]"):
        assert text in out.getvalue()
