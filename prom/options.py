"""Numbers that people give: as text (``name=value``, in the type of the function's signature), and as arguments, with a range."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real

from prom.errors import InputError, unknown

READOUTS = ("spokes", "spirals", "kooshball", "readouts")  # patterns off the grid: see prom.kspace.trajectories
FILES = ("sensitivities", "maps", "annotations")  # options of readers that name files
CONVENTIONS = ("paper", "fastmri")  # of scores: see prom.evaluation.metrics
FORMATS = (".npy", ".h5", ".mat", ".cfl", ".csv", ".png")  # of exported masks: see prom.masks.export

SCANNER_FORMATS = (".seq", ".mrd")  # and what a scanner is given: see prom.scanner.writing

IMAGE_FORMATS = (".nii.gz", ".nii", ".npy", ".h5", ".png")  # of reconstructed images: see prom.scanner.image_files
PHASES = ("free", "smooth")  # of reconstructed images: see prom.scanner.reconstruct

KINDS = {  # of options: in words, and an example
    "bool": ("true or false", "true"),
    "Sequence[int]": ("whole numbers", "60,80"),
    "Sequence[float]": ("numbers", "220,180.5"),
    "int": ("a whole number", "10"),
    "float": ("a number", "0.1"),
}


def names(function: Callable, without: Collection[str]) -> dict[str, str]:
    """The parameters of a function, but those named in ``without``, each with its type."""
    kinds = {name: p.annotation for name, p in inspect.signature(function).parameters.items() if name not in without}
    return {name: kind.__name__ if isinstance(kind, type) else str(kind) for name, kind in kinds.items()}


def parse(text: str, known: dict[str, str], of: str) -> tuple[str, object]:
    """``name=value`` as a name of ``known`` and the value in its type. ``of`` names the owner of the options, for messages.

    Raises
    ------
    InputError
        Where the name is not known or the value is of another type.

    >>> known = {"sigma": "float", "protect_centre": "bool", "slices": "Sequence[int]"}
    >>> [parse(text, known, "demo") for text in ("sigma=35", "protect_centre=true", "slices=60,80")]
    [('sigma', 35.0), ('protect_centre', True), ('slices', [60, 80])]
    """
    name, _, value = text.partition("=")
    if name not in known:
        raise unknown(f"option of {of}", name, known)
    kind = known[name]
    if name in FILES and not value:
        raise InputError(f"option {text!r}: '' is no file; name one, or leave it out")
    try:
        if "bool" in kind:
            return name, {"true": True, "false": False}[value.lower()]
        if "Sequence[int]" in kind:
            return name, [whole_number(part) for part in value.split(",")]
        if "Sequence[float]" in kind:
            return name, [real_number(part) for part in value.split(",")]
        if kind.startswith("str"):  # also where a number is understood
            return name, value
        return name, whole_number(value) if "int" in kind else real_number(value) if "float" in kind else value
    except (KeyError, ValueError) as error:
        words, example = next(found for known_kind, found in KINDS.items() if known_kind in kind)
        raise InputError(f"option {text!r}: {name} of {of} must be {words}, e.g. {name}={example}") from error


def parse_all(
    texts: Iterable[str], parse: Callable[[str], tuple[str, object]], given: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Several of them, each name once; ``given`` are set already.

    >>> parse_all(["sigma=35", "sigma=5"], lambda text: parse(text, {"sigma": "float"}, "demo"))
    Traceback (most recent call last):
    prom.errors.InputError: option 'sigma=5': sigma is set already; set it once (a list has commas)
    """
    found = dict(given or {})
    for text in texts:
        name, value = parse(text)
        if name in found:
            raise InputError(f"option {text!r}: {name} is set already; set it once (a list has commas)")
        found[name] = value
    return found


def whole_number(text: str) -> int:
    """A whole number of 64 bits, in digits from 0 to 9 alone: ``int`` also takes blanks, ``1_0`` and digits of other scripts.

    Raises
    ------
    ValueError
        Where it is anything else.

    >>> whole_number("-3")
    -3
    """
    if not re.fullmatch("[+-]?[0-9]{1,20}", text) or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{text[:40]!r} is not a whole number of 64 bits")
    return int(text)


def real_number(text: str) -> float:
    """A finite number, with a point or an exponent or without, likewise.

    Raises
    ------
    ValueError
        Where it is anything else, as NaN or 1e999.

    >>> real_number("1.5e-3")
    0.0015
    """
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]!r} is not a finite number")
    return float(text)


def check(name: str, value: object, interval: str, whole: bool = False) -> int | float:
    """A number of this interval, ``"(0, 1]"`` for 0 < value <= 1, as Python's own ``int`` or ``float``. ``name`` is for the message.

    Raises
    ------
    InputError
        Where it is no number, NaN, outside the interval, or not whole where it must be.

    >>> check("steps", 20, "[1, 1e9]", whole=True)
    20
    >>> check("momentum", float("nan"), "[0, 1)")
    Traceback (most recent call last):
    prom.errors.InputError: momentum nan: must be >= 0 and < 1
    """
    label = f"{name}{'' if name.endswith('=') else ' '}{_shown(value)}"
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise InputError(f"{label}: must be a {'whole ' if whole else ''}number")
    least, most = (part.strip() for part in interval[1:-1].split(","))
    above = value > float(least) if interval[0] == "(" else value >= float(least)
    below = value < float(most) if interval[-1] == ")" else value <= float(most)
    if not (above and below):
        raise InputError(
            f"{label}: must be {'>' if interval[0] == '(' else '>='} {least} and {'<' if interval[-1] == ')' else '<='} {most}"
        )
    try:
        return int(value) if whole else float(value)
    except OverflowError as error:  # of a whole number that no double holds
        raise InputError(f"{label}: is too large") from error


def _shown(value: object) -> str:
    if isinstance(value, Integral) and (bits := int(value).bit_length()) > 1024:  # Python refuses to print numbers of many digits
        return f"of {bits} bits"
    return str(value)[:40]


def check_seed(seed: object) -> int:
    """A seed, as Python's own ``int``.

    Raises
    ------
    InputError
        Where it is not a whole number of 64 bits.

    >>> check_seed(2**63)
    Traceback (most recent call last):
    prom.errors.InputError: seed 9223372036854775808: must be a whole number of 64 bits
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not -(2**63) <= seed < 2**63:
        raise InputError(f"seed {_shown(seed)}: must be a whole number of 64 bits")
    return int(seed)
