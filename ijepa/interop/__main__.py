"""`python -m ijepa.interop inspect FILE` and `python -m ijepa.interop convert IN OUT --to FORMAT`."""

import sys

from ijepa.util import signals

if __name__ == "__main__":
    signals.leave_sigint_to_system()
    from ijepa.interop.command import main

    sys.exit(main())
