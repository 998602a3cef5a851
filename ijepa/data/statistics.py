"""The command `python -m ijepa.data.statistics`, whose code is in ijepa/cli/statistics.py."""

from ijepa.util import signals

if __name__ == "__main__":
    signals.leave_sigint_to_system()
    from ijepa.cli import entry
    from ijepa.cli.statistics import statistics

    entry.main("statistics", statistics)
