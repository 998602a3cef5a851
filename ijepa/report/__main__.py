"""`python -m ijepa.report RUN_DIR`."""

import sys

from ijepa.util import signals

if __name__ == "__main__":
    signals.leave_sigint_to_system()
    from ijepa.report.command import main

    sys.exit(main())
