"""The commands: their options, their help, and one line for whatever goes wrong."""
