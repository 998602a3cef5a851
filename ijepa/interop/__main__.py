"""`python -m ijepa.interop inspect FILE` and `python -m ijepa.interop convert IN OUT --to FORMAT`."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; commands.run takes over
    from ijepa.interop.command import main

    sys.exit(main())
