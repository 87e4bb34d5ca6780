"""Options of a function as text, as the command line takes them: ``name=value``, in the type that the function's signature says."""
# No recorded result depends on this file.

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection

from prom.errors import InputError, unknown

EXAMPLES = {"bool": "true", "Sequence[int]": "60,80", "int": "10", "float": "0.1"}


def names(function: Callable, without: Collection[str]) -> dict[str, str]:
    """The parameters of a function, but those named in ``without``, each with its type."""
    return {name: str(p.annotation) for name, p in inspect.signature(function).parameters.items() if name not in without}


def parse(text: str, known: dict[str, str], of: str) -> tuple[str, object]:
    """``name=value`` as a name of ``known`` and the value in its type. ``of`` says whose options they are, for messages.

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
    try:
        if "bool" in kind:
            return name, {"true": True, "false": False}[value.lower()]
        if "Sequence[int]" in kind:
            return name, [int(part) for part in value.split(",")]
        return name, int(value) if "int" in kind else float(value) if "float" in kind else value
    except (KeyError, ValueError) as error:
        example = f"{name}={EXAMPLES[kind.split(' ')[0]]}"
        raise InputError(f"option {text!r}: {name} of {of} must be {kind}, e.g. {example}") from error
