"""Real functions at 50 digits, rounded once to the nearest number of a type."""

from fractions import Fraction

import torch
from mpmath import mp, mpf

mp.dps = 50
SOURCE = f"mpmath {__import__('mpmath').__version__}, 50 digits"

# Precision in bits, least normal exponent, greatest finite number.
FORMATS = {
    torch.float64: (53, -1022, 1.7976931348623157e308),
    torch.float32: (24, -126, 3.4028234663852886e38),
    torch.float16: (11, -14, 65504.0),
    torch.bfloat16: (8, -126, 3.3895313892515355e38),
}


def fraction(x):
    """An mpf, float or int as a rational, exactly."""
    if isinstance(x, mpf):
        sign, mantissa, exponent, _ = x._mpf_
        value = Fraction(int(mantissa)) * (Fraction(2) ** exponent)
        return -value if sign else value
    return Fraction(x)


def nearest(x, dtype):
    """The number of `dtype` nearest to a rational, ties to even, as a float; infinity beyond the range. Zero is positive."""
    precision, least, greatest = FORMATS[dtype]
    value = abs(x)
    if value == 0:
        return 0.0
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > value
    step = Fraction(2) ** (max(exponent, least) - precision + 1)
    rounded = round(value / step) * step
    result = float("inf") if rounded > Fraction(greatest) else float(rounded)
    return -result if x < 0 else result


def rounded(values, dtype, shape=None):
    """Values (mpf, Fraction, float, also NaN and infinities) as a tensor of `dtype`, each rounded once."""

    def one(v):
        if isinstance(v, (float, mpf)) and (v != v or v in (float("inf"), float("-inf")) or v == 0):
            return float(v)
        return nearest(fraction(v), dtype)

    out = torch.tensor([one(v) for v in values], dtype=torch.float64).to(dtype)
    return out.reshape(shape) if shape is not None else out
