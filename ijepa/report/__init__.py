"""Runs as one HTML page that needs nothing else: config, health, curves, results, pictures."""
