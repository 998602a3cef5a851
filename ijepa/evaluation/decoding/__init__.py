"""task=decode: how close pictures drawn from representations are to what was represented (paper, section 8)."""
