"""Where this software keeps what is not code: conf/ of a checkout, or its copy in a package that pip has installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (PACKAGE / "_conf").is_dir()
"""Whether this is an installed wheel, into which setup.py puts conf/; a checkout, installed or not, has no _conf."""
CONF = PACKAGE / "_conf" if INSTALLED else PACKAGE.parent / "conf"
"""The configuration's files."""
USER_CONF = Path("conf") if INSTALLED else CONF
"""Where commands write options: the checkout's conf/, or conf/ in the current folder, which --config-dir adds."""
