"""Quotes of Hydra's grammar in ``key=value``."""

import re

QUOTED_OVERRIDE = re.compile(r"""([^=]*)=(['"])(.*)\2""", re.DOTALL)


def quoted(text: str) -> str:
    """A string in Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + (end[2] and "\\'"), text)
    return f"'{escaped}'"


def without_quotes(override: str) -> str:
    """``key=value`` from ``key='value'``, for people."""
    return QUOTED_OVERRIDE.sub(r"\1=\3", override)
