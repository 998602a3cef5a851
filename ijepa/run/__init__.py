"""The life of a run: built, started, resumed, finalized; and evaluations of what it leaves."""
