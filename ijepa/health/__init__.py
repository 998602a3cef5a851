"""Health checks: measures of features on held-out images, and the verdict from them."""
