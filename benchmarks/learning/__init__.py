"""How much does each method learn for its compute? See `benchmarks.learning.__main__`."""
