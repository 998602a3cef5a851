"""Utilities shared by several packages: errors, files, random numbers, argument parsing."""
