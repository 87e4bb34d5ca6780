"""How a mask is optimised: every choice is a field, with its reason. `PAPER` is the authors' procedure, the others are ours."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from prom import options
from prom.errors import InputError, unknown

CHOICES = {
    "estimator": ("gumbel", "straight_through"),
    "step_rule": ("adam", "quantile"),
    "initialisation": ("uniform", "energy"),
}
MOST_ITERATIONS = 10**8  # of all members together; the history has a row for each
WHOLE = {"iterations": "[1, 1e8]", "batch_size": "[1, 1e9]", "samples": "[1, 1e6]", "members": "[1, 1e8]", "polish": "[0, 1e9]"}
REAL = {
    "learning_rate": "(0, 1e6]",
    "momentum": "[0, 1)",
    "rms_decay": "[0, 1)",
    "epsilon": "[0, 1e6]",
    "tau_start": "(0, 1e6]",
    "tau_end": "(0, 1e6]",
    "exploration": "[0, 1)",
    "exploitation": "[0, 1)",
    "anneal_power": "(0, 1000]",
    "hold_out": "[0, 1)",
}
ONLY_OF = {  # fields that one choice alone uses
    "rms_decay": ("step_rule", "adam"),
    "epsilon": ("step_rule", "adam"),
    "tau_start": ("estimator", "gumbel"),
    "tau_end": ("estimator", "gumbel"),
}
SWITCHES = ("shared_mask", "curvature", "project_after_step", "independent_members")


@dataclass(frozen=True)
class Recipe:
    """One optimisation procedure. ``dataclasses.replace(prom.PAPER, iterations=500)`` makes a variant.

    Raises
    ------
    InputError
        Where a field is out of its range.

    >>> from dataclasses import replace
    >>> replace(PAPER, iterations=0)
    Traceback (most recent call last):
    prom.errors.InputError: recipe field iterations=0: must be >= 1 and <= 1e8
    """

    name: str
    iterations: int
    batch_size: int  # images per iteration; a smaller data set is used whole
    samples: int  # L of Eq. 2: masks per image, or per iteration where the mask is shared
    shared_mask: bool  # one mask for the whole batch, instead of one per image and sample
    estimator: str  # "gumbel": Eq. 4 and 5; "straight_through": hard Bernoulli masks, dm/dtheta := 1
    curvature: bool  # add (1/2 - m) d2L/dm2, which makes dL/dm a model of E[L | m=1] - E[L | m=0]; only straight_through
    step_rule: str  # "adam": each coordinate divided by its own RMS; "quantile": all divided by one number
    learning_rate: float
    momentum: float  # decay of the running mean of the gradient
    rms_decay: float = 0.999  # Adam's beta_2
    epsilon: float = 1e-8  # Adam's; the only quantity with the unit of the gradient, hence the sensitivity to the images' scale
    initialisation: str = "uniform"  # theta ~ U(0, 1) (section 4); "energy": evenly from 0 to 1 in the order of the mean power spectrum
    tau_start: float = 1.0  # temperature of Eq. 4, linear ...
    tau_end: float = 0.03  # ... down to this value in the last iteration (paper, section 4)
    exploration: float = 0.1  # share of the iterations with S = D (paper: 250 of 2500)
    exploitation: float = 0.1  # share of the iterations at the final S (paper: 250 of 2500)
    anneal_power: float = 3.0  # the paper's A.1 prints no exponent; the authors' code has 3
    project_after_step: bool = True  # Algorithm 1; the authors' code projects first, so that its theta can leave [0, 1]
    members: int = 1  # solutions averaged (paper: Bayesian model averaging of 10)
    independent_members: bool = True  # the authors' last code does not reset theta, Adam and S between members
    polish: int = 0  # evaluations of the loss over the whole training set that :func:`prom.polish` may spend on the mask of Eq. 8
    hold_out: float = 0.0  # share of the patients whose loss must fall as well for a swap of polishing to be kept; they propose none

    def __post_init__(self) -> None:
        for name, interval in (*WHOLE.items(), *REAL.items()):
            value = getattr(self, name)
            plain = options.check(f"recipe field {name}=", value, interval, whole=name in WHOLE)
            if type(value) not in (int, float):  # of NumPy, which records cannot hold
                object.__setattr__(self, name, plain)
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"recipe field {name}={getattr(self, name)!r}: must be True or False")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown(f"recipe field {name}", getattr(self, name), allowed)
        if self.iterations * self.members > MOST_ITERATIONS:
            raise InputError(f"recipe fields iterations={self.iterations}, members={self.members}: must be <= {MOST_ITERATIONS} together")
        if self.tau_end > self.tau_start:
            raise InputError(f"recipe field tau_end={self.tau_end}: must be > 0 and <= tau_start={self.tau_start}")
        for name, (choice, needed) in ONLY_OF.items():
            if (chosen := getattr(self, choice)) != needed and (value := getattr(self, name)) != getattr(Recipe, name):
                raise InputError(f"recipe field {name}={value}: is of {choice}={needed!r}, and {choice}={chosen!r}; leave it out")
        if self.exploration + self.exploitation >= 1:
            raise InputError(f"recipe fields exploration={self.exploration}, exploitation={self.exploitation}: must be >= 0 and sum to < 1")
        if self.hold_out and not self.polish:
            raise InputError(f"recipe field hold_out={self.hold_out}: is of polishing, and polish=0; set polish too, or leave it out")
        if self.curvature and self.estimator != "straight_through":
            raise InputError("recipe field curvature=True: needs estimator='straight_through'")

    @property
    def phases(self) -> tuple[float, float, float]:
        """How the budget falls: exploration, exploitation, power (:func:`prom.masks.schedules.annealed_budget`)."""
        return self.exploration, self.exploitation, self.anneal_power

    def as_dict(self) -> dict[str, object]:
        """Field names and values, for records."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# Weber et al., WACV 2024, section 4; where paper and code differ, see the fields' comments and chapter 6.
PAPER = Recipe(
    name="paper",
    iterations=2500,
    batch_size=32,
    samples=4,  # 32 x 4 = the paper's total batch of 128
    shared_mask=False,
    estimator="gumbel",
    curvature=False,
    step_rule="adam",
    learning_rate=0.01,
    momentum=0.9,  # Adam's beta_1
    members=10,
)

# Scale-invariant ProM: same distribution, projection, annealing and posterior mode; another gradient estimate and step.
DEFAULT = Recipe(
    name="default",
    iterations=300,
    batch_size=16,
    samples=1,
    shared_mask=True,  # one mask for 16 images: the noise of the mask averages out over iterations, and k-space stays in cache
    estimator="straight_through",  # no temperature, and a point at theta = 0 still gets a gradient
    curvature=True,
    step_rule="quantile",  # keeps the ranking of the gradient; multiplying the images changes nothing
    learning_rate=0.05,
    momentum=0.9,
    exploration=0.02,  # most of what is learnt is learnt at the final budget: data/recorded/settings.py, on patients held out
    exploitation=0.8,
)

# A third of DEFAULT's iterations, then discrete polishing, which needs no better start and ends at the better mask. Its 24
# evaluations are enough for slices of several channels too, whose loss falls for longer than that of single-channel slices.
POLISHED = replace(DEFAULT, name="polished", iterations=100, exploration=0.1, exploitation=0.1, polish=24)

RECIPES = {recipe.name: recipe for recipe in (PAPER, DEFAULT, POLISHED)}


def get(name: str) -> Recipe:
    """The recipe called ``name``: "paper", "default" or "polished".

    >>> get("default").iterations
    300
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
