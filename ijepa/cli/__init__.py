"""The command lines: options, help, one-line errors."""
