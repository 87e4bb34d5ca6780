"""Types of the command line's options: numbers in digits from 0 to 9 alone, finite, and of at most 64 bits."""

from __future__ import annotations

from collections.abc import Callable

import click

from prom import options


class Number(click.ParamType):
    """A number that one of the functions of :mod:`prom.options` reads, in an interval as ``"[0, 1)"`` for 0 <= number < 1.

    >>> Number("number", options.real_number, "[0, 1)").convert("0.5", None, None)
    0.5
    """

    def __init__(self, name: str, read: Callable[[str], float], interval: str | None = None) -> None:
        self.name, self.read, self.interval = name, read, interval

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Of text the number; defaults are numbers already."""
        if not isinstance(value, str):
            return value
        try:
            number = self.read(value)
            return number if self.interval is None else options.check("number", number, self.interval, whole=isinstance(number, int))
        except ValueError as error:  # an InputError is one
            self.fail(str(error), param, ctx)


def whole(interval: str | None = None) -> Number:
    """The type of an option that takes whole numbers of this interval."""
    return Number("integer", options.whole_number, interval)


def real(interval: str | None = None) -> Number:
    """The type of an option that takes numbers of this interval."""
    return Number("float", options.real_number, interval)
