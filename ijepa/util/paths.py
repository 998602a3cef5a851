"""The folder of the default configuration: conf/ in a checkout, or its copy in an installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (PACKAGE / "_conf").is_dir()
"""Whether this is an installed wheel, where setup.py has put conf/; a checkout has no _conf."""
CONF = PACKAGE / "_conf" if INSTALLED else PACKAGE.parent / "conf"
"""The default configuration."""
USER_CONF = Path("conf") if INSTALLED else CONF
"""Where commands write new options: conf/ of the checkout, or conf/ in the current folder, for --config-dir."""
