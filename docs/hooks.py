"""Hooks of `mkdocs build`: names of source files, which are links in the repository, are text on the site."""

import re
from typing import Any

SOURCE_LINK = re.compile(r"\[([^\]]+)\]\(\.\./(?!docs/)([^)#]*)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces a link out of docs/ by its text and, if it is another, the file's path."""
    return SOURCE_LINK.sub(lambda link: link[1] if link[2] in link[1] else f"{link[1]} (`{link[2]}`)", markdown)
