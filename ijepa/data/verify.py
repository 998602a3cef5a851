"""The command `python -m ijepa.data.verify`, whose code is in ijepa/cli/verify.py."""

from ijepa.util import signals

if __name__ == "__main__":
    signals.leave_sigint_to_system()
    from ijepa.cli import entry
    from ijepa.cli.verify import verify

    entry.main("verify", verify)
