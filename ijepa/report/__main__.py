"""`python -m ijepa.report RUN_DIR`."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; commands.run takes over
    from ijepa.report.command import main

    sys.exit(main())
