"""Whether a run is healthy: measures of features on held-out images, and what they mean together."""
