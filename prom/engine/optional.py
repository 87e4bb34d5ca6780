"""Libraries that not everybody needs, imported when the first thing is made that does: MONAI, pypulseq, ismrmrd, FINUFFT, ipywidgets."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType

from prom.errors import InputError


def monai(part: str) -> ModuleType:
    """``monai.losses``, ``monai.networks.nets`` or ``monai.transforms``, by its last name.

    Raises
    ------
    InputError
        Where MONAI is not installed.

    >>> monai("nets").UNet.__name__
    'UNet'
    """
    try:
        import monai.losses
        import monai.networks.nets
        import monai.transforms
    except ImportError as error:
        raise missing("networks", "monai", "segmentation") from error
    return {"losses": monai.losses, "nets": monai.networks.nets, "transforms": monai.transforms}[part]


def pypulseq() -> ModuleType:
    """pypulseq, which writes and reads sequences of the Pulseq format.

    Raises
    ------
    InputError
        Where it is not installed.

    >>> pypulseq().Sequence.__name__
    'Sequence'
    """
    return _named("pypulseq", "sequences (.seq)")


def ismrmrd() -> ModuleType:
    """ismrmrd, which writes and reads the headers of raw data.

    Raises
    ------
    InputError
        Where it is not installed.

    >>> ismrmrd().Acquisition.__name__
    'Acquisition'
    """
    return _named("ismrmrd", "raw data (.mrd)")


def finufft() -> ModuleType:
    """FINUFFT, which transforms at spatial frequencies off the grid.

    Raises
    ------
    InputError
        Where it is not installed.

    >>> finufft().Plan.__name__
    'Plan'
    """
    return _named("finufft", "trajectories off the grid", "noncartesian")


def ipywidgets() -> ModuleType:
    """ipywidgets, whose controls are those of an explorer with a kernel behind it.

    Raises
    ------
    InputError
        Where it is not installed.

    >>> ipywidgets().Dropdown.__name__
    'Dropdown'
    """
    return _named("ipywidgets", "live explorers", "book")


def missing(what: str, package: str, extra: str) -> InputError:
    """The error that says what needs a package which is not there, and which extra of this one brings it.

    >>> missing("sequences", "pypulseq", "scanner")
    InputError("sequences need the Python package pypulseq, which is not installed: pip install 'prom-mri[scanner]'")
    """
    return InputError(f"{what} need the Python package {package}, which is not installed: pip install 'prom-mri[{extra}]'")


def _named(name: str, what: str, extra: str = "scanner") -> ModuleType:
    try:
        with warnings.catch_warnings():  # ismrmrd makes every warning of the process show when it is imported
            return import_module(name)
    except ImportError as error:
        raise missing(what, name, extra) from error
