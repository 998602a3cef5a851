"""Hostile tries, each repeatable by its number: configurations, files, kills, signals and full disks."""
