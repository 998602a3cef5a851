"""Utilities shared by several packages: errors, files, random numbers, metric specs, argument parsing."""
