"""What spins do in these sequences: the Bloch equations under their pulses and gradients, against the theory of each contrast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scans import of

from prom.scanner.protocol import Protocol
from prom.scanner.sequence import Scan, make

SPINS = 16000  # at random places in a volume much larger than a voxel, so that what is dephased averages to 1/sqrt(SPINS)


def run(made: Scan, readings: np.ndarray, t1: float, t2: float, spoiled: bool = True) -> np.ndarray:
    """The transverse magnetisation at these times, s: short pulses of the sequence's angles and phases, between them its gradients."""
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    begins = np.cumsum([0.0, *made.sequence.block_durations.values()])[:-1]
    pulses = [
        (begin + block.rf.delay + block.rf.center, block.rf) for begin, block in zip(begins, blocks, strict=True) if block.rf is not None
    ]
    generator = np.random.default_rng(0)
    voxel = np.array([made.plan.fov[0] / made.plan.matrix[0], 0.0, made.plan.fov[2]])  # at y = 0 the encoding has no effect
    places = generator.uniform(-50, 50, (SPINS, 3)) * voxel
    moment = [None if gradient is None else gradient.antiderivative() for gradient in made.sequence.get_gradients()]
    transverse, along = np.zeros(SPINS, complex), np.ones(SPINS)
    now, found = 0.0, {}
    for time, pulse in sorted([*pulses, *((reading, None) for reading in readings)], key=lambda event: event[0]):
        turned = sum(places[:, axis] * (m(time) - m(now)) for axis, m in enumerate(moment) if m is not None)
        transverse = transverse * np.exp(-(time - now) / t2 - 2j * np.pi * turned)
        along, now = 1 + (along - 1) * math.exp(-(time - now) / t1), time
        if pulse is None:
            found[time] = transverse.mean()
            continue
        angle = 2 * np.pi * np.trapezoid(pulse.signal.real, pulse.t)
        axis = np.exp(1j * (pulse.phase_offset if spoiled else 0.0))  # the rotation is about this direction of the transverse plane
        parallel, across = (transverse * axis.conj()).real, (transverse * axis.conj()).imag
        across, along = across * math.cos(angle) - along * math.sin(angle), across * math.sin(angle) + along * math.cos(angle)
        transverse = (parallel + 1j * across) * axis
    return np.array([found[reading] for reading in readings])


def turned(block, gradient: float, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Cayley-Klein parameters of a pulse at places along its gradient (Pauly et al. 1991), from its middle to its middle in phase."""
    alpha, beta = np.ones(len(places), complex), np.zeros(len(places), complex)
    step = np.diff(block.rf.t).mean()
    for sample in block.rf.signal:
        flip, along = 2 * np.pi * sample * step, 2 * np.pi * gradient * places * step
        angle = np.sqrt(abs(flip) ** 2 + along**2) + 1e-30
        a, b = np.cos(angle / 2) - 1j * along / angle * np.sin(angle / 2), -1j * flip / angle * np.sin(angle / 2)
        alpha, beta = a * alpha - b.conj() * beta, b * alpha + a.conj() * beta
    return alpha, beta


@pytest.mark.parametrize("thickness", [3, 5])
def test_an_echo_is_of_a_slice_as_thick_as_was_asked_for(thickness):
    """The profile of the first echo: what the excitation leaves transverse, times what the refocusing pulse inverts."""
    made = make(of(torch.arange(12) % 2 == 0, "columns", (16, 12)), Protocol(kind="tse", echoes=6, thickness=thickness))
    blocks = [made.sequence.get_block(number) for number in made.sequence.block_events]
    places = np.linspace(-2 * thickness, 2 * thickness, 801) / 1000
    profile = np.ones(len(places))
    for use in ("excitation", "refocusing"):
        block = next(block for block in blocks if block.rf is not None and block.rf.use == use)
        alpha, beta = turned(block, block.gz.amplitude, places)
        profile = profile * (2 * abs(alpha * beta) if use == "excitation" else abs(beta) ** 2)
    width = np.ptp(places[profile > profile.max() / 2]) * 1000
    assert profile.max() == pytest.approx(1, abs=0.05) and width == pytest.approx(thickness, rel=0.1)


def extended_phase_graph(echoes: int, flip: float) -> np.ndarray:
    """Amplitudes of a train without relaxation, after Hennig (1988): states F(k), k from -n to n, and Z(k)."""
    size = 2 * echoes + 2
    plus, minus, stored = (np.zeros(size, complex) for _ in range(3))
    plus[0] = minus[0] = 1.0
    half, amplitudes = flip / 2, []
    for _ in range(echoes):
        for refocus in (True, False):
            plus[1:], minus[:-1] = plus[:-1].copy(), minus[1:].copy()
            minus[-1], plus[0] = 0.0, minus[0].conj()
            if refocus:
                rotated = math.cos(half) ** 2, math.sin(half) ** 2, math.sin(flip)
                plus, minus, stored = (
                    rotated[0] * plus + rotated[1] * minus - 1j * rotated[2] * stored,
                    rotated[1] * plus + rotated[0] * minus + 1j * rotated[2] * stored,
                    -0.5j * rotated[2] * plus + 0.5j * rotated[2] * minus + math.cos(flip) * stored,
                )
        amplitudes.append(abs(plus[0]))
    return np.array(amplitudes)


@pytest.mark.parametrize("flip", [180, 120, 60])
def test_echoes_of_a_train(flip):
    """With refocusing pulses of any angle the amplitudes of the extended phase graph, all in phase with the receiver: CPMG."""
    made = make(of(torch.arange(12) % 2 == 0, "columns", (16, 12)), Protocol(kind="tse", echoes=6, refocusing=flip, dummies=0, tr=200))
    spacing = made.sequence.definitions["EchoSpacing"]
    excitation = made.sequence.rf_times()[0][0]
    signal = run(made, excitation + spacing * np.arange(1, 7), np.inf, np.inf)
    np.testing.assert_allclose(np.abs(signal), extended_phase_graph(6, math.radians(flip)), atol=4 / math.sqrt(SPINS))
    received = signal * np.exp(-1j * math.radians(90))
    assert np.abs((received * received[0].conj()).imag).max() < 4 / math.sqrt(SPINS)


def test_the_steady_state_is_spoiled():
    """Ernst's signal (Ernst and Anderson 1966) to a few per cent (Zur et al. 1991); without the phases of the pulses another."""
    t1, t2 = 0.6, 0.08
    made = make(of(torch.ones(200, dtype=torch.bool), "columns", (4, 200)), Protocol(tr=8, te=4, flip=15, dummies=0, fov=(400, 400)))
    excitations = np.array(made.sequence.rf_times()[0])
    phases = [made.sequence.get_block(number).adc for number in made.sequence.block_events]
    phases = np.array([adc.phase_offset for adc in phases if adc is not None])
    readings = excitations[150:] + made.te
    angle, recovery = math.radians(15), math.exp(-made.tr / t1)
    ernst = math.sin(angle) * (1 - recovery) / (1 - recovery * math.cos(angle)) * math.exp(-made.te / t2)
    signal = run(made, readings, t1, t2) * np.exp(-1j * phases[150:])
    assert np.abs(signal - signal.mean()).max() < 0.15 * ernst  # the same in every repetition, phase and all
    assert abs(signal.mean()) == pytest.approx(ernst, rel=0.05)
    unspoiled = np.abs(run(made, readings, t1, t2, spoiled=False)).mean()
    assert unspoiled > 1.2 * ernst


@pytest.mark.parametrize("flip", [8, 15])
def test_dummies_lead_to_the_steady_state(flip):
    """The first line that is measured has Ernst's signal, and the first pulse several times that."""
    t1, t2 = 1.5, 0.08
    made = make(of(torch.ones(8, dtype=torch.bool), "columns", (4, 8)), Protocol(tr=8, te=4, flip=flip, fov=(400, 400)))
    excitations = np.array(made.sequence.rf_times()[0])
    first = len(excitations) - 8
    angle, recovery = math.radians(flip), math.exp(-made.tr / t1)
    ernst = math.sin(angle) * (1 - recovery) / (1 - recovery * math.cos(angle)) * math.exp(-made.te / t2)
    signal = np.abs(run(made, excitations[[0, *range(first, first + 8)]] + made.te, t1, t2)) / ernst
    assert signal[0] > 2 and np.abs(signal[1:].mean() - 1) < 0.08
