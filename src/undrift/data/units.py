"""Spellings of units."""

from __future__ import annotations

from typing import Any

__all__ = ["same_units"]

_SAME = {
    "degc": "c celsius degreescelsius degreecelsius degcelsius °c deg_c degreesc degrees_c degree_c degrees_celsius",
    "k": "kelvin kelvins degk degreesk deg_k degrees_k degree_k",
    "degrees_north": "degree_north degreesn degreen degrees_n degree_n",
    "degrees_east": "degree_east degreese degreee degrees_e degree_e",
    "1": "dimensionless none fraction unitless 0-1",
    "%": "percent pct",
    "pa": "pascal pascals",
    "hpa": "mbar millibar millibars hectopascal hectopascals mb",
    "m": "meter metre meters metres",
}
_SPELLINGS = {word: key for key, words in _SAME.items() for word in (key, *words.split())} | {"": "1"}
_WORDS = {
    "second": "s", "seconds": "s", "sec": "s", "day": "d", "days": "d", "hour": "h", "hours": "h", "hr": "h",
    "metre": "m", "metres": "m", "meter": "m", "meters": "m", "kelvin": "K",
}  # fmt: skip


def same_units(a: str, b: str) -> bool:
    """Whether two texts spell the same unit: "kg m-2 s-1" is "kg/m2/s", "degC" is "Celsius"; degC is not K.

    Nothing is converted: units that measure the same thing on other scales are different.
    """
    return _unit_key(a) == _unit_key(b)


def _unit_key(text: str) -> Any:
    """Exponent per unit symbol, after a table of spellings."""
    text = str(text).strip()
    known = _SPELLINGS.get(text.lower().replace(" ", ""))
    if known is not None:
        return known
    clean = text.replace("**", "").replace("^", "").replace("·", " ").replace("*", " ").replace(".", " ")
    for sign, plain_sign in (("⁻", "-"), ("−", "-"), ("¹", "1"), ("²", "2"), ("³", "3")):
        clean = clean.replace(sign, plain_sign)
    powers: dict[str, int] = {}
    for number, piece in enumerate(clean.split("/")):
        for word in piece.split():
            symbol = word.rstrip("-+0123456789")
            power = word[len(symbol) :]
            if not symbol:
                symbol, power = (word, "1") if word != "1" else ("", "0")
            try:
                exponent = int(power or "1")
            except ValueError:
                return text
            symbol = _WORDS.get(symbol.lower(), symbol)
            powers[symbol] = powers.get(symbol, 0) + (-exponent if number else exponent)
    kept = {symbol: power for symbol, power in powers.items() if power and symbol}
    if len(kept) == 1 and set(kept.values()) == {1}:
        symbol = next(iter(kept))
        return _SPELLINGS.get(symbol.lower(), symbol)
    return tuple(sorted(kept.items()))
