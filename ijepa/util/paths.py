"""Paths of files that are not code."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF = PACKAGE.parent / "conf"
"""The configuration's files."""
