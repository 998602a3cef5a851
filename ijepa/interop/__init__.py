"""Import and export of weights in other formats, one file per format."""
