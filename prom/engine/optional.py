"""MONAI, which only networks need: imported when the first of them is made."""

from __future__ import annotations

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
        raise InputError("Python package monai: is not installed; pip install -e '.[segmentation]' brings it") from error
    return {"losses": monai.losses, "nets": monai.networks.nets, "transforms": monai.transforms}[part]
