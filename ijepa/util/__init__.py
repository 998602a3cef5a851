"""What several packages need and none of them owns: errors, files, random numbers, argument parsing."""
