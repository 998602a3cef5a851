"""What happens along a run."""
