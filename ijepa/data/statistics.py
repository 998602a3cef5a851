"""The command `python -m ijepa.data.statistics`, whose code is in ijepa/cli/statistics.py."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; entry.main takes over
    from ijepa.cli import entry
    from ijepa.cli.statistics import statistics

    entry.main("statistics", statistics)
