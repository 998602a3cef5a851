"""Where this software keeps what is not code."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF = PACKAGE.parent / "conf"
"""The configuration's files."""
