"""What happens during a run."""
