"""Foreign weight formats, one file each."""
