"""The loop: exact budgets, determinism, scale, every recipe and pattern, and that it really finds good masks."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

import prom
from prom import DEFAULT, PAPER, InputError, SliceDataset, baselines, evaluate, fft2c, ifft2c, optimize, polish
from prom.engine.device import choose_device
from prom.learn.batches import ShuffledBatches
from prom.learn.gradient import expected_gradient
from prom.masks import bernoulli
from prom.problem import Problem, as_dataset

QUICK = replace(DEFAULT, iterations=120)
QUICK_PAPER = replace(PAPER, iterations=60, members=1, batch_size=4)


def scaled(data: SliceDataset, factor: float) -> SliceDataset:
    return SliceDataset(data.name, data.split, data.images * factor, data.subjects, data.slices)


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("pattern", ["points", "columns", "rows"])
@pytest.mark.parametrize("acceleration", [1, 3, 7.5])
def test_budget_is_exact(blobs, recipe, pattern, acceleration):
    result = optimize(blobs, acceleration, pattern=pattern, recipe=replace(recipe, iterations=12))
    lines = 32 * 32 if pattern == "points" else 32
    assert int(result.mask.sum()) == int(lines / acceleration) * (32 * 32 // lines)
    assert result.theta.min() >= 0 and result.theta.max() <= 1 and float(result.theta.sum()) <= int(lines / acceleration) + 1e-3
    assert result.mask.dtype == torch.bool and len(result.history) == 12


@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
def test_same_seed_same_bits(blobs, recipe):
    first, second, other = (optimize(blobs, 4, recipe=recipe, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.theta, second.theta) and first.history.equals(second.history)
    assert not torch.equal(first.theta, other.theta)


@pytest.mark.parametrize("exponent", [-20, -7, 1, 20])
def test_default_does_not_see_a_power_of_two(blobs, exponent):
    reference = optimize(blobs, 8, recipe=QUICK)
    assert torch.equal(optimize(scaled(blobs, 2.0**exponent), 8, recipe=QUICK).mask, reference.mask)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-3, 0.3, 1234.5])
def test_default_sees_other_factors_by_rounding_only(factor):
    data = prom.load("mni_brain", subjects=3).select(range(1, 24, 3))
    reference, other = (optimize(d, 8, recipe=replace(DEFAULT, iterations=150)).mask for d in (data, scaled(data, factor)))
    assert (reference == other).float().mean() >= 0.999


def test_paper_does_see_the_scale(blobs):
    """The finding that the book is about: Adam's epsilon has the unit of the gradient."""
    one, other = (optimize(d, 8, recipe=QUICK_PAPER).theta for d in (blobs, scaled(blobs, 1e-3)))
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("acceleration", [4, 8, 16])
def test_default_beats_the_energy_oracle_on_its_own_objective(blobs, acceleration):
    recipe = replace(DEFAULT, batch_size=12)

    def error(mask: torch.Tensor) -> float:
        return float((prom.undersample(blobs.images, mask) - blobs.images).square().mean())

    assert error(optimize(blobs, acceleration, recipe=recipe).mask) < error(baselines.energy(blobs, acceleration))


def test_paper_recipe_learns(blobs):
    result = optimize(scaled(blobs, 0.01), 4, recipe=replace(PAPER, iterations=300, members=1, batch_size=4))
    random = torch.zeros(1024, dtype=torch.bool)
    random[torch.randperm(1024, generator=torch.Generator().manual_seed(0))[:256]] = True
    assert evaluate(result.mask, blobs).psnr.mean() > evaluate(random.view(32, 32), blobs).psnr.mean() + 3


def test_the_papers_own_numbers():
    assert (PAPER.iterations, PAPER.learning_rate, PAPER.batch_size * PAPER.samples, PAPER.members) == (2500, 0.01, 128, 10)
    assert (PAPER.exploration * 2500, PAPER.exploitation * 2500, PAPER.tau_start, PAPER.tau_end) == (250, 250, 1.0, 0.03)


def test_single_image_mode():
    image = prom.load("mni_brain", subjects=1).images[4, 0]
    result = optimize(image, 8, recipe=replace(PAPER, iterations=5, members=1))
    assert result.provenance["slices"] == 1 and int(result.mask.sum()) == 8192


def test_the_gradient_of_the_paper_is_that_of_its_expected_loss(blobs):
    """Eq. 2 with Eq. 5, written out in float64: mean over images and masks of the loss's gradient at the hard mask times the soft slope."""
    theta = 0.05 + 0.9 * torch.rand(32, 32, generator=torch.Generator().manual_seed(1))
    recipe, batch, tau = replace(PAPER, samples=3), [0, 5, 7], 0.7
    problem = Problem.of(blobs, 4, "points", "magnitude_mse", "cpu")
    loss, gradient, active = expected_gradient(problem, batch, theta, tau, recipe, torch.Generator().manual_seed(2))
    seeds = torch.randint(2**63 - 1, (len(batch),), generator=torch.Generator().manual_seed(2)).tolist()
    losses, gradients, shares = [], [], []
    for image, seed in zip(batch, seeds, strict=True):
        target = blobs.images[image, 0].double()
        hard, _ = bernoulli.relaxed_sample(theta, tau, torch.Generator().manual_seed(seed), 3)
        uniform = torch.rand(3, 32 * 32, generator=torch.Generator().manual_seed(seed)).double().reshape(hard.shape)
        place = theta.double().requires_grad_()
        soft = torch.sigmoid((torch.logit(place) + torch.logit(uniform)) / tau)  # Eq. 4
        assert torch.equal(hard > 0.5, soft > 0.5)
        mask = hard.double() + soft - soft.detach()  # Eq. 5
        each = (ifft2c(fft2c(target + 0j) * mask).abs() - target).square().mean(dim=(-2, -1))
        losses += each.tolist()
        gradients.append(torch.autograd.grad(each.sum(), place)[0])
        shares.append(hard.mean())
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5) and float(active) == pytest.approx(np.mean(shares))
    torch.testing.assert_close(gradient.double(), sum(gradients) / len(losses), rtol=1e-3, atol=1e-9)


def test_members_are_independent_and_averaged(blobs, monkeypatch):
    solutions, average = [], bernoulli.average
    monkeypatch.setattr(bernoulli, "average", lambda members: average(solutions.append(list(members)) or members))
    recipe = replace(QUICK_PAPER, iterations=15)
    three = optimize(blobs, 4, recipe=replace(recipe, members=3))
    [members] = solutions
    assert len(members) == 3 and torch.equal(three.theta, torch.stack(members).mean(dim=0)) and not torch.equal(*members[:2])
    assert sorted(three.history["member"].unique()) == [0, 1, 2] and len(three.history) == 45
    one = optimize(blobs, 4, recipe=recipe)
    assert torch.equal(members[0], one.theta)
    assert three.history["loss"][:15].equals(one.history["loss"])
    assert (three.history.groupby("member")["budget"].first() == 1024).all()
    chained = optimize(blobs, 4, recipe=replace(recipe, members=3, independent_members=False))
    assert (chained.history.query("member > 0")["budget"] == 256).all()  # as the authors' code: S is not annealed again


@pytest.mark.parametrize("recipe", [QUICK_PAPER, QUICK], ids=["paper", "default"])
def test_project_before_step_still_ends_feasible(blobs, recipe):
    result = optimize(blobs, 4, recipe=replace(recipe, project_after_step=False))
    assert float(result.theta.sum()) <= 256 + 1e-3 and result.theta.min() >= 0 and result.theta.max() <= 1


def test_the_order_of_projection_and_step_makes_a_difference(blobs):
    recipe = replace(PAPER, iterations=20, members=1, batch_size=4)
    one, two = (optimize(blobs, 4, recipe=replace(recipe, project_after_step=after)) for after in (True, False))
    assert not torch.equal(one.theta, two.theta)


def test_history_follows_the_schedule(blobs):
    history = optimize(blobs, 8, recipe=QUICK).history
    assert history["budget"].iloc[0] == 1024 and history["budget"].iloc[-1] == 128 and (history["budget"].diff().dropna() <= 0).all()
    assert history["active_fraction"].iloc[-1] == pytest.approx(1 / 8, abs=0.02)


def test_dc_is_not_lost_where_the_object_fills_the_field_of_view():
    """Without it every image is at 3 dB. As in a crop from the middle of a body: bright all over."""
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    generator = np.random.default_rng(0)
    shapes = generator.uniform(-0.8, 0.8, (12, 6, 4))
    images = [1 + sum(0.2 * w * (np.hypot(x - u, y - v) < abs(s) + 0.1) for u, v, s, w in one) for one in shapes]
    data = torch.tensor(np.stack(images), dtype=torch.float32)
    for pattern, seeds in (("columns", 6), ("points", 2)):
        for seed in range(seeds):
            result = optimize(data, 8, pattern, recipe=replace(DEFAULT, iterations=60), seed=seed)
            assert result.mask[24, 24] and result.demands.plain and prom.evaluate(result.mask, as_dataset(data))["psnr"].mean() > 20
    assert not optimize(data, 8, recipe=replace(DEFAULT, iterations=60), forbid=torch.eye(48).bool()).mask[24, 24]


def test_a_gradient_that_is_not_a_number_is_an_error(blobs):
    """Of one blank image among others: a step takes it for 0."""
    blank = torch.cat([blobs.images, torch.zeros_like(blobs.images[:1])])
    with pytest.raises(InputError, match="gradient, is nan"):
        optimize(blank, 8, objective=lambda a, b: (a.sqrt() - b.sqrt()).square().mean(), recipe=replace(QUICK, iterations=5))


@pytest.mark.parametrize("kind", ["volumes", "series"])
def test_curvature_counts_the_masks_not_the_planes_of_one(kind, monkeypatch):
    """The term is (1/2 - m) h, whatever the number of partitions or frames."""
    data = SliceDataset("demo", "train", torch.rand(3, 1, 5, 16, 16), ["a", "b", "c"], [0] * 3, kind=kind)
    problem = Problem.of(data, 4)
    h = torch.full(problem.pattern.samples, 1e6)
    monkeypatch.setattr(type(problem.objective), "curvature", lambda self: h)
    theta = torch.ones(problem.pattern.shape)
    gradient = expected_gradient(problem, [0, 1], theta, 1.0, DEFAULT, torch.Generator().manual_seed(0))[1]
    assert torch.allclose(gradient, -h / 2, rtol=1e-3)


def test_callback_sees_every_iteration(blobs):
    seen = []
    optimize(
        blobs,
        4,
        recipe=replace(QUICK, iterations=7, curvature=False),
        callback=lambda iteration, theta: seen.append((iteration, theta.shape)),
    )
    assert seen == [(i, (32, 32)) for i in range(7)]


@pytest.mark.parametrize("recipe", [DEFAULT, replace(PAPER, members=1)], ids=["default", "paper"])
def test_iterations_leave_nothing_in_memory(blobs, recipe):
    kept = {}

    def count(iteration, theta):
        if iteration in (5, 25):
            gc.collect()
            tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
            kept[iteration] = sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())

    optimize(blobs, acceleration=4, recipe=replace(recipe, iterations=30), callback=count)
    assert kept[25] <= kept[5]


def test_any_loss_as_objective(blobs):
    result = optimize(blobs, 4, recipe=replace(QUICK, iterations=60), objective=torch.nn.functional.l1_loss)
    assert result.mask[12:20, 12:20].float().mean() > 0.9 and result.provenance["objective"] == "l1_loss"


def test_complex_and_multichannel_input(blobs):
    phase = torch.exp(1j * torch.linspace(0, 3, 32) ** 2).to(torch.complex64)
    data = (blobs.images * phase).view(6, 2, 32, 32)
    made = [
        optimize(part, 4, recipe=replace(QUICK, iterations=10)) for part in (data, data.abs(), data[:, :1], data.flatten(0, 1)[:, None])
    ]
    assert [int(one.mask.sum()) for one in made] == [256] * 4
    assert not any(torch.equal(made[0].theta, other.theta) for other in made[1:])  # phase and both channels have a part in it
    assert int(optimize(np.asarray(blobs.images[:, 0]), 4, recipe=replace(QUICK, iterations=10)).mask.sum()) == 256


def test_batches_visit_every_image_once_a_pass():
    batches = ShuffledBatches(10, 5, torch.Generator().manual_seed(0))
    passes = [next(batches) + next(batches) for _ in range(3)]
    assert all(sorted(one) == list(range(10)) for one in passes) and len(set(map(tuple, passes))) == 3  # in a new order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"acceleration": "4"}, "acceleration 4: must be a number"),
        ({"acceleration": None}, "acceleration None: must be a number"),
        ({"acceleration": float("nan")}, "acceleration nan: must be >= 1"),
        ({"acceleration": 0.5}, "acceleration 0.5: must be >= 1"),
        ({"acceleration": 2000}, "must be <= 1024"),
        ({"pattern": "spiral"}, "pattern 'spiral'"),
        ({"objective": "mse"}, "objective 'mse'"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_bad_arguments(blobs, arguments, message):
    with pytest.raises(InputError, match=message):
        optimize(blobs, **{"acceleration": 4, **arguments})


def test_what_are_no_images_or_recipe_is_named(blobs):
    for data, message in (("im.npy", "data 'im.npy': must be images, not their path"), (np.array([{}]), "data of type object")):
        with pytest.raises(InputError, match=message):
            optimize(data, 4)
    with pytest.raises(InputError, match="recipe 'default': must be a Recipe, e.g. prom.DEFAULT"):
        optimize(blobs, 4, recipe="default")


def test_bad_images():
    with pytest.raises(InputError, match="NaN"):
        optimize(torch.full((1, 8, 8), float("nan")), 2)
    with pytest.raises(InputError, match="shape"):
        optimize(torch.rand(8), 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_missing_cuda_is_said():
    with pytest.raises(InputError, match="no usable CUDA"):
        choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
def test_cuda_learns_as_the_cpu_does(blobs, recipe):
    result = optimize(blobs, 8, recipe=recipe, device="cuda")
    reference = optimize(blobs, 8, recipe=recipe, device="cpu")
    assert int(result.mask.sum()) == 128
    assert evaluate(result.mask, blobs).psnr.mean() == pytest.approx(evaluate(reference.mask, blobs).psnr.mean(), abs=1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
def test_a_replayed_graph_does_what_its_operations_do_one_by_one(blobs, recipe, monkeypatch):
    """The same numbers are drawn, and nothing that an iteration leaves behind is lost; sums may come in another order."""
    short = replace(recipe, iterations=20, members=2)
    replayed = optimize(blobs, 8, recipe=short, device="cuda")
    monkeypatch.setattr("prom.engine.replay.EAGER", 10**6)
    torch.testing.assert_close(replayed.theta, optimize(blobs, 8, recipe=short, device="cuda").theta, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", [QUICK, QUICK_PAPER], ids=["default", "paper"])
def test_an_iteration_never_waits_for_the_device(blobs, recipe):
    def watch(iteration: int, theta: torch.Tensor) -> None:
        torch.cuda.set_sync_debug_mode("error" if 0 < iteration < recipe.iterations - 1 else "default")

    try:
        optimize(blobs, 8, recipe=recipe, device="cuda", callback=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_energy_initialisation_is_the_oracle_before_any_step(blobs):
    """A vanishing step leaves the order of the start, whose posterior mode is the energy oracle."""
    recipe = replace(DEFAULT, initialisation="energy", iterations=1, learning_rate=1e-9)
    assert torch.equal(optimize(blobs, 8, recipe=recipe).mask, baselines.energy(blobs, 8))


@pytest.mark.parametrize("pattern", ["points", "columns"])
def test_polished_recipe_continues_the_default(blobs, pattern):
    short = replace(DEFAULT, iterations=60)
    learnt = optimize(blobs, 4, pattern=pattern, recipe=short)
    polished = optimize(blobs, 4, pattern=pattern, recipe=replace(short, polish=16))
    assert torch.equal(polished.theta, learnt.theta) and polished.mask.sum() == learnt.mask.sum()
    assert torch.equal(polished.mask, polish(learnt.mask, blobs, pattern, evaluations=16))
    assert pattern == "columns" or not torch.equal(polished.mask, learnt.mask)


@pytest.mark.parametrize("recipe", ["default", "polished"])
@pytest.mark.parametrize("exponent", [60, -67, -99, 99])
def test_extreme_units_change_no_mask_and_the_loss_has_their_square(blobs, recipe, exponent):
    recipe = replace(prom.recipes.get(recipe), iterations=30)
    reference = optimize(blobs, 8, recipe=recipe)
    result = optimize(scaled(blobs, 2.0**exponent), 8, recipe=recipe)
    assert torch.equal(result.mask, reference.mask) and torch.equal(result.theta, reference.theta)
    np.testing.assert_allclose(result.history["loss"], reference.history["loss"] * 4.0**exponent, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e18, 1e-20])
def test_adam_and_other_objectives_refuse_units_in_which_they_fail(blobs, factor):
    with pytest.raises(InputError, match="where Adam fails"):
        optimize(scaled(blobs, factor), 8, recipe=QUICK_PAPER)
    with pytest.raises(InputError, match="the loss is inf"):
        optimize(scaled(blobs, 1e25), 8, recipe=replace(QUICK, iterations=3), objective=torch.nn.functional.mse_loss)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (name, bad)
            for name in ("momentum", "rms_decay", "exploration", "exploitation", "hold_out")
            for bad in (float("nan"), -0.1, 1.0, "x")
        ),
        *(
            (name, bad)
            for name in ("learning_rate", "tau_start", "tau_end", "anneal_power")
            for bad in (float("nan"), float("inf"), 0.0, None)
        ),
        *((name, bad) for name in ("iterations", "batch_size", "samples", "members") for bad in (0, -1, 2.5, True, float("nan"), 10**30)),
        *((name, 1) for name in ("shared_mask", "curvature", "project_after_step", "independent_members")),
        ("epsilon", float("nan")),
        ("polish", -1),
    ],
)
def test_fields_of_a_recipe_have_a_range(field, value):
    with pytest.raises(InputError, match=f"recipe field {field}=.*: must be") as caught:
        replace(DEFAULT, **{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**30, 1.5, True, "1", None])
def test_seeds_have_64_bits(blobs, seed):
    quick = replace(QUICK, iterations=1)
    for call in (
        lambda: optimize(blobs, 4, recipe=quick, seed=seed),
        lambda: baselines.gaussian(blobs, 4, seed=seed),
        lambda: baselines.get("igs")(blobs, 4, seed=seed),
        lambda: prom.MaskLayer((8, 8), 4, seed=seed),
        lambda: optimize(blobs, 4, recipe=quick).sample(seed=seed),
    ):
        with pytest.raises(InputError, match="must be a whole number of 64 bits"):
            call()
    assert optimize(blobs, 4, recipe=quick, seed=np.int64(3)).seed == 3


@pytest.mark.parametrize("field, value, recipe", [("tau_end", 0.1, DEFAULT), ("tau_start", 2, DEFAULT), ("rms_decay", 0.9, DEFAULT)])
def test_fields_that_a_recipe_does_not_use_are_refused(field, value, recipe):
    with pytest.raises(InputError, match=f"recipe field {field}={value}: is of .*; leave it out"):
        replace(recipe, **{field: value})
    assert getattr(replace(PAPER, **{field: value}), field) == value


def test_recipes_may_have_numbers_of_numpy(blobs, tmp_path):
    plain = replace(QUICK, iterations=5, learning_rate=0.03125)
    recipe = replace(QUICK, iterations=np.int64(5), learning_rate=np.float32(0.03125))
    assert recipe == plain and all(type(value) in (int, float, bool, str) for value in recipe.as_dict().values())
    result = optimize(blobs, np.float32(4), recipe=recipe)
    result.save(tmp_path / "mask.h5")
    assert torch.equal(result.mask, optimize(blobs, 4, recipe=plain).mask)
    assert prom.patterns.make("columns", (168, 168)).budget(np.float32(2.24)) == 74  # which is 2.2400000095


@pytest.mark.parametrize("objective", ["magnitude_mse", torch.nn.functional.l1_loss])
def test_masks_are_learnt_in_inference_mode(blobs, objective):
    quick = replace(QUICK, iterations=3)
    expected = optimize(blobs, 4, recipe=quick, objective=objective)
    with torch.inference_mode():
        assert torch.equal(optimize(blobs, 4, recipe=quick, objective=objective).mask, expected.mask)


def test_masked_arrays_are_refused():
    with pytest.raises(InputError, match="is a masked array, whose mask would be lost"):
        optimize(np.ma.masked_greater(np.random.default_rng(0).random((2, 16, 16)), 0.9), 4)
