"""The registry of methods: what makes masks, one row each. It imports nothing heavy, so that help and errors do not wait for PyTorch.

A new baseline is a function ``(train, acceleration, pattern=, seed=, demands=, **options) -> mask`` and a row here; or, from outside,
``register(Method("mine", "my own", function=mine))``, where ``demands`` may be missing: then for this
process alone. The command line, sweeps and records go by this table; the explorer has a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from prom.errors import InputError
from prom.options import READOUTS

if TYPE_CHECKING:
    from torch import Tensor

EVERY_PATTERN = ("points", "columns", "rows")


@dataclass(frozen=True)
class Method:
    """One way to make a mask.

    Attributes
    ----------
    name
        As it is typed.
    label
        As it is called in tables and figures.
    home
        The module that has the function of that name; empty for a recipe of :mod:`prom.learn.recipes`.
    patterns
        Those that sweeps run it for; it may take others.
    random
        Whether the seed makes a difference (for ``igs``: only where it looks at batches).
    learns
        Whether it goes by a loss, so that it can be used through a network as well.
    source
        Where it comes from.
    colour
        Of its lines and dots in figures, ``#rrggbb``.
    in_time
        Whether it is for series in time only.
    function
        The function itself, of a method that is registered from outside.
    """

    name: str
    label: str
    home: str = ""
    patterns: tuple[str, ...] = EVERY_PATTERN
    random: bool = False
    learns: bool = False
    source: str = ""
    colour: str = "#000000"
    in_time: bool = False
    function: Callable[..., Tensor] | None = None

    @property
    def off_grid(self) -> bool:
        """Whether it is for readouts off the grid only."""
        return set(self.patterns) <= set(READOUTS)

    @property
    def baseline(self) -> bool:
        """Whether it is a function that returns a mask, and not a recipe of the optimiser."""
        return bool(self.function or self.home)

    def make(self, *arguments: object, **options: object) -> Tensor:
        """Call the function of a baseline: a bool mask, ``(H, W)``, of series ``(T, H, W)``, off the grid ``(K, R)``."""
        return self.resolve()(*arguments, **options)

    def resolve(self) -> Callable[..., Tensor]:
        """The function, whose module is imported now."""
        return self.function or getattr(import_module(self.home), self.name)


FORMS, DENSITIES, RIVALS, TIME, ANGLES = (f"prom.baselines.{name}" for name in ("closed_forms", "densities", "rivals", "in_time", "angles"))
LINES, STILL = ("columns", "rows"), ("still-points", "still-columns", "still-rows")
# Colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish, and greys and others where these run out.
ROWS = (
    Method("energy", "energy oracle", FORMS, source="Knoll et al. 2011; Baldassarre et al. 2016", colour="#56B4E9"),
    Method("conjugate_energy", "conjugate-aware energy", FORMS, source="this project", colour="#009E73"),
    Method("repulsion", "energy with repulsion", "prom.baselines.repulsion", source="this project", colour="#117733"),
    Method(
        "a_optimal",
        "exact A-optimal",
        "prom.baselines.a_optimal",
        source="this project; after Haldar and Kim 2018",
        colour="#332288",
    ),
    Method("low_pass", "low-pass", FORMS, colour="#999999"),
    Method("equispaced", "equispaced lines", DENSITIES, LINES, random=True, source="fastMRI", colour="#E69F00"),
    Method("gaussian", "Gaussian", DENSITIES, random=True, colour="#666666"),
    Method("polynomial", "polynomial density", DENSITIES, random=True, source="Lustig, Donoho and Pauly 2007", colour="#AA4499"),
    Method("poisson_disc", "Poisson disc", DENSITIES, ("points",), random=True, source="Bridson 2007", colour="#CC79A7"),
    Method("lattice", "shifted lattice", "prom.baselines.lattice", ("points",), source="Breuer et al. 2006", colour="#DDCC77"),
    Method(
        "best_candidate",
        "best candidate",
        "prom.baselines.best_candidate",
        source="Levine and Hargreaves 2017",
        colour="#44AA99",
    ),
    Method(
        "shifted_equispaced",
        "shifted k-t lattice",
        TIME,
        source="Kellman, Epstein and McVeigh 2001; Tsao, Boesiger and Pruessmann 2003",
        colour="#E69F00",
        in_time=True,
    ),
    Method("golden_step", "golden-step lines", TIME, LINES, source="Rich et al. 2020; Joshi et al. 2022", colour="#DDCC77", in_time=True),
    Method("vista", "VISTA-like", TIME, LINES, random=True, source="Ahmad et al. 2015", colour="#CC79A7", in_time=True),
    Method("equal_angles", "equal angles", ANGLES, ("spokes", "spirals"), colour="#E69F00"),
    Method(
        "anisotropic_angles",
        "anisotropic angles",
        ANGLES,
        ("spokes",),
        source="Larson, Gurney and Nishimura 2008",
        colour="#44AA99",
    ),
    Method(
        "golden_angle",
        "golden angle",
        ANGLES,
        ("spokes", "spirals"),
        source="Winkelmann et al. 2007; Wundrak et al. 2016",
        colour="#DDCC77",
    ),
    Method("random_readouts", "random readouts", ANGLES, READOUTS, random=True, colour="#666666"),
    Method("repeated", "best frame repeated", "prom.baselines.repeated", STILL, source="this project", colour="#999999", in_time=True),
    Method("igs", "IGS", RIVALS, learns=True, source="Razumov, Rogov and Dylov 2023", colour="#CC79A7"),
    Method("loupe", "LOUPE's layer", RIVALS, random=True, learns=True, source="Bahadir et al. 2020", colour="#882255"),
    Method(
        "score_prune",
        "scores and pruning",
        RIVALS,
        random=True,
        learns=True,
        source="Ramanujan et al. 2020; Xuan et al. 2020",
        colour="#999933",
    ),
    Method(
        "bass",
        "BASS",
        "prom.baselines.bass",
        random=True,
        learns=True,
        source="Zibetti, Herman and Regatte 2021",
        colour="#661100",
    ),
    Method("paper", "paper's recipe", random=True, learns=True, source="Weber et al. 2024", colour="#D55E00"),
    Method("default", "scale-invariant ProM", random=True, learns=True, source="this project", colour="#0072B2"),
    Method("polished", "polished ProM", random=True, learns=True, source="this project", colour="#000000"),
)
METHODS = {method.name: method for method in ROWS}


def register(method: Method) -> None:
    """Add a method, which from then on is known by its name.

    Raises
    ------
    InputError
        Where the name is taken.

    >>> register(Method("energy", "another"))
    Traceback (most recent call last):
    prom.errors.InputError: method 'energy': exists already; choose another name
    """
    if method.name in METHODS:
        raise InputError(f"method {method.name!r}: exists already; choose another name")
    METHODS[method.name] = method


def named(name: str) -> Method:
    """The method of that name, which must be known.

    >>> named("energy").random
    False
    """
    return METHODS[name]


def baselines(learning: bool = False) -> list[str]:
    """Names of the methods that are functions; with ``learning`` of those among them that learn.

    >>> baselines(learning=True)
    ['igs', 'loupe', 'score_prune', 'bass']
    """
    return [method.name for method in METHODS.values() if method.baseline and (method.learns or not learning)]
