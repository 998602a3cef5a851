"""Devices, precision, sharding, Slurm and signals."""
