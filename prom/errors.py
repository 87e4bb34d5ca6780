"""The one exception for bad input. The command line turns it into one line on stderr and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used. The message names the value and the way out, in one line.

    >>> raise InputError("acceleration 0.5: must be >= 1")
    Traceback (most recent call last):
    prom.errors.InputError: acceleration 0.5: must be >= 1
    """


def unknown_noise(name: str, why: str, more: str = "", noise: float | None = None) -> InputError:
    """The error for data whose noise is not known, or 0; ``more``: further ways out.

    >>> print(unknown_noise("mine", "which SENSE needs"))
    mine: its noise is not known, which SENSE needs; give its reader noise= (of coils=keep) or maps_noise= (of maps=)
    """
    known, way = "not known" if noise is None else "0, not above 0", "give its reader noise= (of coils=keep) or maps_noise= (of maps=)"
    return InputError(f"{name}: its noise is {known}, {why}; {way}{more}")


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest one that does.

    >>> print(unknown("data set", "acdcc", ["acdc", "mni_brain"]))
    data set 'acdcc' is not known; did you mean 'acdc'? (known: acdc, mni_brain)
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listing = f"known: {', '.join(known)}"
    return InputError(f"{kind} {name!r} is not known; {hint}({listing})" if near else f"{kind} {name!r} is not known ({listing})")
