"""Formats numbers, durations, sizes and names for people."""

import math
from pathlib import Path

from ijepa.util.errors import one_line

MINUS, TIMES = "\u2212", "\u00d7"
SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def name(path: Path | str) -> str:
    """A file's name, or any text, on one line, see `one_line`."""
    return one_line(str(path))


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits: 0.433, 19,200, 3.75 x 10^12."""
    if value is None:
        return "\u2013"
    if not math.isfinite(value):
        return "not finite"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}".replace("-", MINUS)
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
        return f"{value:,.{decimals}f}".replace("-", MINUS)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    factor = "" if float(mantissa) == 1 else f"{float(mantissa):g} {TIMES} "
    return f"{factor}10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """A duration: 34 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "\u2013"
    rounded = round(seconds)
    for size, unit, smaller, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if rounded >= size:
            rest = rounded % size // smaller
            return f"{rounded // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: int) -> str:
    """A size in bytes: 640 kB, 1.2 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 0.1):.3g} kB"
