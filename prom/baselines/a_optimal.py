"""Exact greedy A-optimal design: the yardstick of every mask for several coils, on small grids and for lines."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from prom import options
from prom.baselines.closed_forms import energy
from prom.baselines.frames import one_frame
from prom.datasets.base import SliceDataset
from prom.errors import InputError, unknown_noise
from prom.kspace.fourier import fft2c, ifft2c, offsets
from prom.masks.demands import Demands, allowed
from prom.reconstruction.sense import LEAST_POWER, mean_power

MEMORY = 2**30  # bytes that the covariance may take, 16 N^2 each: points up to 90 x 90, lines up to 400 of 400 positions


@one_frame(instead="repulsion")
def a_optimal(
    train: SliceDataset,
    acceleration: float,
    pattern: str = "points",
    seed: int = 0,
    passes: int = 0,
    demands: Demands | None = None,
) -> Tensor:
    r"""Exact greedy A-optimal design: one sample after another, the one that lowers the mean error of SENSE most.

    That SENSE has the training images' mean power as its prior; :meth:`prom.reconstruction.sense.Sense.of` smooths it.

    Each step is exact; the whole is greedy, so that another mask can still be better.

    .. math:: \min_m \operatorname{tr} \Gamma, \qquad \Gamma^{-1} = \sum_{i \in m} B_i B_i^H / \sigma^2 + \operatorname{diag}(1 / P),

    with :math:`\Gamma` the covariance of the error of :math:`z = F x` (:math:`\sigma^2` times the inverse of A of
    :class:`prom.reconstruction.sense.Sense`), P the mean power spectrum, :math:`\sigma` the noise, and the column c of
    :math:`B_i \in \mathbb{C}^{N \times C}` what coil c measures of z at place i. All coils measure at once, so by Woodbury a sample lowers
    the trace by

    .. math:: \operatorname{tr} \big[ (\sigma^2 1 + G_i)^{-1} H_i \big], \qquad G_i = B_i^H \Gamma B_i, \quad H_i = B_i^H \Gamma^2 B_i .

    :math:`G_i` and :math:`H_i` of all places are kept, C x C each, and follow every update of :math:`\Gamma`, which has rank C.

    *Lines.* After the Fourier transform along the readout every readout position is a problem of its own, with the maps there, and traces
    add up. For that the prior has to come apart as well: each position gets the mean of P along the readout, which is its own exact
    covariance under P, and what positions tell of one another is left out. So for lines the trace is the exact mean error of the best
    linear image that is made position by position, and never less than that of SENSE with all of P.

    *Cost.* :math:`\Gamma` takes :math:`16 N^2` bytes, the rest about :math:`80 C^2 N`, and a sample about :math:`24 C N^2` operations: on
    one core 2 s for 32 x 32 points at x8 with eight coils, minutes for 64 x 64. Of lines N is their number, with a problem for every
    position.

    With one even coil :math:`G_i = P_i` at first and nothing couples, and this is :func:`prom.baselines.energy`, exactly. Nothing is
    random; ``seed`` is not used. Haldar and Kim 2018 (OEDIPUS, arXiv 1805.00524) remove samples one by one instead, without a prior.

    Parameters
    ----------
    train
        Slices with ``sensitivities`` (where every slice has its own, the traces of all are added) and ``noise``.
    passes
        How often, afterwards, each sample is taken out and the best one put in its place, by the same updates; it ends before where nothing
        changes. Each pass takes as long as two greedy masks.
    demands
        What is mandatory comes first, and stays; then the best of those samples that leave the rest possible.

    Returns
    -------
    Tensor
        ``(H, W)`` bool, centred, exactly floor(D / alpha) samples or lines.

    Raises
    ------
    InputError
        Where the noise is not known, the grid is too large, or ``passes`` is not a whole number from 0 on.

    >>> data = SliceDataset("demo", "train", torch.ones(2, 1, 8, 8), ["a", "b"], [0, 0])
    >>> a_optimal(data, acceleration=64).nonzero().tolist()          # one coil: the energy oracle
    [[4, 4]]
    """
    options.check("passes", passes, "[0, 1000]", whole=True)
    if train.sensitivities is None:
        return energy(train, acceleration, pattern, seed, demands)
    lines = train.lines(pattern)
    feasible, design = allowed(lines, acceleration, demands), Design.of(train, pattern)
    mandatory = torch.zeros(lines.shape, dtype=torch.bool) if feasible.mandatory is None else feasible.mandatory

    def best() -> int:
        return design.best(feasible.open(design.taken.reshape(lines.shape)).flatten())

    for place in mandatory.flatten().nonzero().flatten().tolist():
        design.take(place)
    bar = {"desc": f"A-optimal x{acceleration:g}", "delay": 2, "disable": None, "leave": False}
    for _ in tqdm(range(feasible.count - int(mandatory.sum())), **bar):
        design.take(best())
    for _ in range(passes):
        before = design.taken.clone()
        for place in tqdm((before & ~mandatory.flatten()).nonzero().flatten().tolist(), **bar):
            design.take(place, back=True)
            design.take(best())
        if design.taken.equal(before):
            break
    return lines.forward(design.taken.reshape(lines.shape)).contiguous()


class Design:
    """The posterior of one or more independent problems that share a mask, and what each sample would do to it.

    Attributes
    ----------
    covariance
        Gamma of each problem: ``(problems, N, N)`` complex128.
    taken
        The samples measured so far: ``(N,)`` bool.

    >>> maps, power = torch.ones(1, 1, 2, 2, dtype=torch.complex128), torch.tensor([[1.0, 4.0], [2.0, 3.0]])
    >>> design = Design(maps, power, noise=1.0)
    >>> design.take(design.best())
    >>> design.taken.tolist(), round(design.trace(), 4)                  # 4 becomes 4 * 1 / (4 + 1)
    ([False, True, False, False], 6.8)
    """

    def __init__(self, maps: Tensor, power: Tensor, noise: float) -> None:
        """``maps``: (problems, C, H, W); ``power``: (H, W), P > 0 of each; ``noise``: its standard deviation in a sample."""
        self.maps, self.noise, self.shape = maps.to(torch.complex128), float(noise), tuple(power.shape)
        power = power.double()
        size = power.numel()
        self.taken = torch.zeros(size, dtype=torch.bool)
        self.covariance = torch.diag(power.flatten()).to(torch.complex128).repeat(len(maps), 1, 1)
        # Of a diagonal covariance D, G_i is the sum over j of D_j times the spectra of two maps at i - j: a convolution.
        spectra = torch.fft.fft2(self.maps) / size
        pairs = torch.fft.fft2(spectra[:, :, None] * spectra[:, None].conj())

        def convolved(diagonal: Tensor) -> Tensor:
            found = torch.fft.ifft2(pairs * torch.fft.fft2(diagonal))  # DC of the spectra is first, so that centred stays centred
            return found.flatten(-2).permute(0, 3, 1, 2).contiguous()

        self._gram, self._square = convolved(power), convolved(power**2)  # G and H: (problems, N, C, C)
        self._order = offsets(self.shape).square().sum(dim=-1).flatten().argsort(stable=True)

    @classmethod
    def of(cls, train: SliceDataset, pattern: str = "points") -> Design:
        """That of a data set, before any sample: parameters of the pattern are places."""
        if not train.noise:
            raise unknown_noise(train.name, "which the images are weighed against", noise=train.noise)
        maps, power = train.maps(range(len(train))), mean_power(train)
        power = power.clamp(min=LEAST_POWER * power.max())
        if pattern == "rows":
            maps, power = maps.mT, power.mT
        if pattern != "points":  # maps (slices, C, readout, N) to a problem for every position, on a grid of one row
            maps = maps.transpose(1, 2).flatten(0, 1).unsqueeze(-2)
            power = power.mean(dim=0, keepdim=True)
        size = 16 * len(maps) * power.numel() ** 2
        if size > MEMORY:
            raise InputError(
                f"{train.name}: a_optimal would need {size / 2**30:.1f} GiB for its covariance, more than {MEMORY / 2**30:g}; "
                "crop the images, use fewer maps, or use repulsion"
            )
        return cls(maps, power, train.noise)

    def trace(self) -> float:
        """The mean squared error of an image of the spectrum P, added up over pixels and problems."""
        return float(self.covariance.diagonal(dim1=-2, dim2=-1).real.sum())

    def gains(self) -> Tensor:
        """By how much each place would lower the trace: ``(N,)`` float64."""
        eye = torch.eye(self.maps.shape[1], dtype=torch.complex128)
        solved = torch.linalg.solve(self.noise**2 * eye + self._gram, self._square)
        return solved.diagonal(dim1=-2, dim2=-1).real.sum(dim=(0, -1))

    def best(self, allowed: Tensor | None = None) -> int:
        """The place, not taken yet, that lowers it most; of equal ones the nearest to DC. Of ``allowed``, bool ``(N,)``, or all."""
        free = ~self.taken if allowed is None else allowed
        return int(self._order[torch.where(free, self.gains(), -torch.inf)[self._order].argmax()])

    def take(self, place: int, back: bool = False) -> None:
        r"""Measure at a place, or ``back``: no longer measure there. By Woodbury with :math:`s = \pm 1`,

        .. math:: \Gamma' = \Gamma - s V V^H, \quad V = \Gamma B_i L^{-H}, \quad L L^H = \sigma^2 1 + s G_i,

        so that with :math:`Q_j = B_j^H V` and :math:`R_j = B_j^H \Gamma V`

        .. math:: G_j' = G_j - s Q_j Q_j^H, \qquad H_j' = H_j - s (Q_j R_j^H + R_j Q_j^H) + Q_j V^H V Q_j^H .
        """
        sign = -1.0 if back else 1.0
        coils = self.maps.shape[1]
        unit = torch.zeros(len(self.covariance), coils, len(self.taken), dtype=torch.complex128)
        unit[:, :, place] = 1
        grid = (len(self.covariance), coils, *self.shape)
        measured = fft2c(self.maps.conj() * ifft2c(unit.reshape(grid))).flatten(-2).mT  # B_i: (problems, N, C)
        inner = self.noise**2 * torch.eye(coils, dtype=torch.complex128) + sign * self._gram[:, place]
        root = torch.linalg.cholesky((inner + inner.mH) / 2)
        v = torch.linalg.solve_triangular(root, (self.covariance @ measured).mH, upper=False).mH
        q, r = self._measure(v), self._measure(self.covariance @ v)
        cross = q @ r.mH
        self._gram -= sign * (q @ q.mH)
        self._square -= sign * (cross + cross.mH) - q @ (v.mH @ v)[:, None] @ q.mH
        self.covariance.baddbmm_(v, v.mH, alpha=-sign)
        self.taken[place] = not back

    def _measure(self, columns: Tensor) -> Tensor:
        """What all coils measure of k-spaces ``(problems, N, columns)``, at every place: ``(problems, N, C, columns)``."""
        images = ifft2c(columns.mT.unflatten(-1, self.shape))  # (problems, columns, H, W)
        return fft2c(self.maps[:, None] * images[:, :, None]).flatten(-2).permute(0, 3, 2, 1).contiguous()  # small products want it
