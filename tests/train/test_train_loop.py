"""The loop and its formulas against closed forms."""

import contextlib
import json
import math
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_problem import Rows, make_batch, make_net, objective

from undrift.errors import Interrupted, UndriftError, UsageError
from undrift.train.checkpoint import Checkpoints
from undrift.train.ema import WIDEST, PowerAverage, exponent_of_width
from undrift.train.log import MetricsLog, read_metrics
from undrift.train.loop import train
from undrift.train.optimizer import AdamW, decayed
from undrift.train.prefetch import Prefetch
from undrift.train.run import RunDirectory
from undrift.train.schedule import learning_rate
from undrift.train.settings import Settings
from undrift.train.signals import Stop, ended_by_signals
from undrift.train.step import Tally, key_of, private_rng
from undrift.train.weights import load_tensors
from undrift.verify.training import under_trained

CPU = torch.device("cpu")
STEPS = Settings(steps=20, learning_rate=3e-3, validate_every=0.1, seed=3)


# --- the average -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, WIDEST])
def test_exponent_gives_the_width_of_its_profile(width):
    """By quadrature of the density (g + 1) u^g on [0, 1]."""
    g = exponent_of_width(width)
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    density = (g + 1) * u**g
    mean = np.mean(u * density)
    assert np.mean(density) == pytest.approx(1, rel=1e-6)
    assert math.sqrt(np.mean((u - mean) ** 2 * density)) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [-0.1, 0.3, math.nan])
def test_a_width_out_of_range(width):
    with pytest.raises(UsageError, match="expected a width in"):
        exponent_of_width(width)


@pytest.mark.parametrize("width", [0.0, 0.05, WIDEST])
def test_average_is_the_power_weighted_mean_of_all_weights(width):
    net = torch.nn.Linear(2, 1).double()
    average = PowerAverage(net, width)
    rng = np.random.default_rng(0)
    path = rng.normal(size=(50, 2))
    for n, w in enumerate(path, 1):
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(w)[None])
        average.update(net, n)
    k = np.arange(51) / 50
    weights = np.diff(k ** (exponent_of_width(width) + 1))  # (k^(g+1) - (k-1)^(g+1)) / n^(g+1)
    np.testing.assert_allclose(average.net.weight.numpy()[0], weights @ path, rtol=1e-12)
    if width == WIDEST:
        np.testing.assert_allclose(weights, 1 / 50, rtol=1e-5)


def test_average_of_small_types_is_kept_in_float32():
    """1 + 2^-9 is lost in bfloat16: an average that is kept there would not move."""
    net = torch.nn.Linear(1, 1).bfloat16()
    average = PowerAverage(net, 0.05)
    for n, value in enumerate([1.0, 1.0078125] * 50, 1):
        with torch.no_grad():
            net.weight.fill_(value)
        average.update(net, n)
    assert average.net.weight.dtype == torch.float32
    assert 1.002 < float(average.net.weight) < 1.006
    assert not average.net.weight.requires_grad


# --- rate, optimiser, keys -------------------------------------------------------------------------------------------


def test_learning_rate_rises_linearly_then_falls_by_a_cosine():
    got = [learning_rate(share, 2.0, 0.2) for share in (0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, -1.0)]
    want = [0, 0.5, 1.0, 2.0, 1 + math.cos(math.pi / 4), 1.0, 1 - math.cos(math.pi / 4), 0.0, 0.0, 0.0]
    np.testing.assert_allclose(got, want, atol=1e-15)
    assert learning_rate(0, 2.0, 0.0) == 2.0


def test_no_step_has_a_rate_of_zero():
    rates = [learning_rate((step + 0.5) / 10, 1.0, 0.2) for step in range(10)]
    assert min(rates) > 0.005


def test_adamw_follows_the_published_algorithm():
    """Against algorithm 2 of Loshchilov & Hutter in numpy, and its decay against the norm's gain, which has none."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).double()
    optimizer = AdamW(net, 0.1, (0.8, 0.95), 1e-8)
    rng = np.random.default_rng(1)
    want = {name: value.detach().numpy().copy() for name, value in net.named_parameters()}
    m = {name: np.zeros_like(value) for name, value in want.items()}
    v = {name: np.zeros_like(value) for name, value in want.items()}
    for n in range(1, 8):
        rate = 0.01 * n
        for name, parameter in net.named_parameters():
            g = rng.normal(size=parameter.shape)
            parameter.grad = torch.from_numpy(g)
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g * g
            decay = 0.1 if name == "0.weight" else 0.0
            adam = m[name] / (1 - 0.8**n) / (np.sqrt(v[name] / (1 - 0.95**n)) + 1e-8)
            want[name] = want[name] - rate * (decay * want[name] + adam)
        optimizer.step(rate)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), want[name], rtol=1e-10)


def test_what_decays():
    net = torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(2, 4, 3),
            "norm": torch.nn.GroupNorm(2, 4),
            "table": torch.nn.Embedding(5, 4),
            "line": torch.nn.Linear(4, 4),
        }
    )
    assert decayed(net) == {"conv.weight", "line.weight"}


def test_training_finds_the_optimum_of_a_quadratic():
    """Least squares: the average of the weights ends at the solution of the normal equations."""
    rng = np.random.default_rng(2)
    a = rng.normal(size=(64, 3)).astype("f4")
    b = (a @ [[1.0], [-2.0], [0.5]] + 0.1 * rng.normal(size=(64, 1))).astype("f4")
    batch = Rows(torch.from_numpy(np.hstack([a, b])))

    def squares(batch, net, key):
        return (net(batch.x[:, :3]) - batch.x[:, 3:]).square().mean(1), {}

    net = torch.nn.Linear(3, 1, bias=False)
    trained = train(
        net, squares, lambda step: batch, settings=Settings(steps=600, learning_rate=0.05, weight_decay=0.0, clip=1e9)
    )
    want = np.linalg.lstsq(a.astype("f8"), b.astype("f8"), rcond=None)[0][:, 0]
    np.testing.assert_allclose(trained.net.weight.detach().numpy()[0], want, atol=2e-4)


def test_gradient_is_clipped_and_its_norm_told(tmp_path):
    """A slope of 100 with a clip of 1e-12 moves nothing beyond eps: Adam is blind to scale, but not below its floor."""
    net = torch.nn.Linear(1, 1, bias=False)
    start = net.weight.detach().clone()

    def slope(batch, net, key):
        return 100 * net.weight.reshape(1).expand(len(batch)), {}

    settings = Settings(steps=5, clip=1e-12, weight_decay=0.0, learning_rate=1e-3)
    with RunDirectory(tmp_path / "run") as run:
        train(net, slope, make_batch, settings=settings, run=run)
    assert float((net.weight - start).detach().abs()) < 5 * 1e-3 * 1e-3
    assert [line["grad_norm"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == pytest.approx(
        [100.0] * 5
    )


def test_keys_are_fixed_for_ever_and_differ():
    assert key_of(0, "objective", 0) == 8215285616675552486
    keys = {
        key_of(seed, purpose, n)
        for seed in range(5)
        for purpose in ("objective", "dropout", "validation")
        for n in range(100)
    }
    assert len(keys) == 1500
    assert all(0 <= key < 2**63 for key in keys)


def test_global_random_state_is_neither_used_nor_changed():
    def draws(seed):
        net = make_net()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        trained = train(net, objective, make_batch, settings=STEPS, validation=[make_batch(99)])
        assert torch.equal(before, torch.get_rng_state())
        return trained.net.state_dict()

    first, second = draws(1), draws(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    with private_rng(5, CPU):
        inside = torch.rand(3)
    with private_rng(5, CPU):
        assert torch.equal(inside, torch.rand(3))


# --- the loop --------------------------------------------------------------------------------------------------------


def test_another_seed_gives_other_weights():
    a = train(make_net(), objective, make_batch, settings=STEPS).net.state_dict()
    b = train(make_net(), objective, make_batch, settings=replace(STEPS, seed=4)).net.state_dict()
    assert not torch.equal(a["0.weight"], b["0.weight"])


def test_prefetch_gives_each_batch_once_and_in_order_from_another_thread():
    asked, threads = [], set()

    def batches(step):
        asked.append(step)
        threads.add(threading.current_thread())
        return make_batch(step)

    with Prefetch(batches, 5) as ahead:
        got = [ahead.take(last=step == 9) for step in range(5, 10)]
    assert asked == [5, 6, 7, 8, 9]
    assert threads != {threading.current_thread()}
    assert len(threads) == 1
    assert all(torch.equal(batch.x, make_batch(step).x) for batch, step in zip(got, range(5, 10), strict=True))


def test_an_error_in_a_batch_comes_through():
    def batches(step):
        if step == 3:
            raise UndriftError("no such window")
        return make_batch(step)

    with pytest.raises(UndriftError, match="no such window"):
        train(make_net(), objective, batches, settings=STEPS)


def test_validation_is_by_the_average_with_fixed_noise_and_without_dropout(tmp_path):
    seen = []

    def spy(batch, net, key):
        if not net.training:
            seen.append((key, batch.x.clone()))
            assert not torch.is_grad_enabled()
        return objective(batch, net, key)

    big, small = make_batch(50, size=12), make_batch(51, size=4)
    with RunDirectory(tmp_path / "run") as run:
        trained = train(make_net(), spy, make_batch, settings=STEPS, validation=[big, small], run=run)
    assert [key for key, _ in seen] == [key_of(3, "validation", 0), key_of(3, "validation", 1)] * 10
    assert [step for step, _ in trained.history] == list(range(2, 21, 2))
    trained.net.eval()
    with torch.no_grad():
        found = [objective(batch, trained.net, key_of(3, "validation", n)) for n, batch in enumerate((big, small))]
    losses = [loss for loss, _ in found]
    # what is told of each level of noise is a mean over samples too, and not over batches
    by_noise = (12 * found[0][1]["loss_by_noise"] + 4 * found[1][1]["loss_by_noise"]) / 16
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "validation"]
    told = {line["step"]: line["loss_by_noise"] for line in lines}
    assert told[trained.best_step] == pytest.approx(by_noise.tolist(), rel=1e-6)
    assert trained.best_loss == pytest.approx(float(torch.cat(losses).double().mean()), abs=1e-12)
    assert trained.best_loss == min(loss for _, loss in trained.history)


def worse_after(step_of_best):
    """An objective whose validation falls until a step and then rises."""
    calls = {"validations": 0}

    def scripted(batch, net, key):
        loss, diagnostics = objective(batch, net, key)
        if net.training:
            return loss, diagnostics
        calls["validations"] += 1
        step = 2 * calls["validations"]
        return loss * 0 + abs(step - step_of_best) + 1.0, diagnostics

    return scripted


def test_patience_stops_and_the_best_weights_are_kept(tmp_path):
    settings = replace(STEPS, patience=3, save_steps=6)
    with RunDirectory(tmp_path / "a") as run:
        stopped = train(make_net(), worse_after(6), make_batch, settings=settings, validation=[make_batch(50)], run=run)
    assert (stopped.stop, stopped.steps, stopped.best_step, stopped.best_loss) == ("patience", 12, 6, 1.0)
    six = load_tensors(tmp_path / "a" / "checkpoints" / "step-00000006" / "state.safetensors")
    assert all(torch.equal(value, six[f"average.{name}"]) for name, value in stopped.net.state_dict().items())
    assert not under_trained(stopped.history)


def test_patience_lasts_until_the_loss_is_as_much_worse_as_asked():
    # from the sixth step on the loss is 1, 3, 5, 7, 9: the third without a new best is 6 worse, the fourth 8
    for worse, steps in ((6.0, 12), (7.0, 14)):
        settings = replace(STEPS, patience=3, worse=worse)
        found = train(make_net(), worse_after(6), make_batch, settings=settings, validation=[make_batch(50)])
        assert (found.stop, found.steps, found.best_step) == ("patience", steps, 6)


def test_the_best_weights_and_the_patience_survive_a_resume(tmp_path):
    settings = replace(STEPS, patience=3)
    whole = train(make_net(), worse_after(6), make_batch, settings=settings, validation=[make_batch(50)])
    scripted = worse_after(6)

    def stopped(batch, net, key):
        stopped.calls += 1
        if stopped.calls == 13:  # nine steps and four validations
            os.kill(os.getpid(), signal.SIGTERM)
        return scripted(batch, net, key)

    stopped.calls = 0
    with RunDirectory(tmp_path / "run") as run, pytest.raises(Interrupted, match="SIGTERM after step 9"):
        train(make_net(), stopped, make_batch, settings=settings, validation=[make_batch(50)], run=run)
    with RunDirectory(tmp_path / "run", resume=True) as run:
        again = train(make_net(), stopped, make_batch, settings=settings, validation=[make_batch(50)], run=run)
    assert (
        (again.stop, again.steps, again.best_step) == ("patience", 12, 6) == (whole.stop, whole.steps, whole.best_step)
    )
    assert again.history == whole.history
    assert all(torch.equal(value, whole.net.state_dict()[name]) for name, value in again.net.state_dict().items())


def test_under_trained():
    """Short trainings, and long ones that fell to their end; not those that settled or turned."""
    steps = range(100, 2100, 100)
    falling, settled = [(n, 100.0 / n) for n in steps], [(n, 0.9 + 0.1 * np.exp(-n / 150)) for n in steps]
    assert under_trained(falling)
    assert not under_trained(settled), "1e-5 at the end is nothing"
    assert not under_trained([*falling, *[(n, 0.0499) for n in range(2100, 4000, 100)]])
    # Runs on the demo's data: losses as they were, with a learning rate that ended at nothing.
    assert under_trained([(1, 0.99187), (2, 0.98874), (3, 0.98814)])
    assert under_trained([(1, 0.89733), (4, 0.89391), (8, 0.88603), (10, 0.8855), (12, 0.88517)])
    assert under_trained([(4, 1.01769), (27, 0.96735), (51, 0.953), (75, 0.94688)])
    assert not under_trained([(68, 0.9426), (340, 0.89), (680, 0.881), (1088, 0.8772), (1350, 0.8788)])
    assert not under_trained([(2, 3.0), (4, 1.0), (6, 2.0), (8, 3.0)]), "patience ended it"
    assert not under_trained([])
    assert not under_trained([(1, None), (2, None)])


def test_less_than_one_pass_is_too_short():
    history = [(n, 0.9 + 0.1 * np.exp(-n / 50)) for n in range(100, 2100, 100)]
    history[-1] = (2000, history[-1][1] - 1e-6)
    assert not under_trained(history, images=32_000, samples=30_000)
    assert under_trained(history, images=32_000, samples=40_000)
    assert under_trained([]) is None


def test_networks_that_share_a_training_have_each_its_part_of_it():
    history = [(n, 0.9 + 0.1 * np.exp(-n / 50)) for n in range(100, 2100, 100)]
    history[-1] = (2000, history[-1][1] - 1e-6)
    assert not under_trained(history, images=32_000, samples=10_000, members=3)
    assert under_trained(history, images=32_000, samples=10_000, members=4)
    few = [(100, 1.0), (200, 0.8), (390, 0.79999)]
    assert not under_trained(few) and under_trained(few, members=2)


def bad_at(steps, kind):
    count = {"step": 0}

    def spoiled(batch, net, key):
        loss, diagnostics = objective(batch, net, key)
        if not net.training:
            return loss, diagnostics
        count["step"] += 1
        if count["step"] in steps:
            if kind == "loss":
                loss = loss * math.nan
            elif kind == "infinite":
                loss = loss + math.inf
            else:  # a finite loss with the gradient of sqrt at 0
                loss = loss + 0 * (net[0].weight.sum() * 0).sqrt()
        return loss, diagnostics

    return spoiled


@pytest.mark.parametrize("kind", ["loss", "infinite", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(kind, tmp_path, caplog):
    with RunDirectory(tmp_path / "run") as run:
        trained = train(make_net(), bad_at({7, 8}, kind), make_batch, settings=STEPS, run=run)
    assert trained.skipped == 2
    assert trained.steps == 20
    assert "step 7 skipped" in caplog.text
    state = load_tensors(tmp_path / "run" / "checkpoints" / "step-00000020" / "state.safetensors")
    assert float(state["count.0.weight"]) == 18
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["loss"] is None or line["grad_norm"] is None for line in lines] == [
        line["step"] in (7, 8) for line in lines
    ]
    assert lines[-1]["skipped"] == 2


def test_the_average_is_not_updated_by_a_skipped_step():
    """Two good steps, then bad ones: the widest average stays the plain mean of the two."""
    seen = []
    spoiled = bad_at(set(range(3, 10)), "loss")

    def spy(batch, net, key):
        seen.append(net[0].weight.detach().clone())
        return spoiled(batch, net, key)

    net = make_net()
    trained = train(net, spy, make_batch, settings=replace(STEPS, steps=9, ema=WIDEST))
    assert trained.skipped == 7
    first, second = seen[1], seen[2]
    assert torch.equal(net[0].weight, second)
    assert not torch.equal(first, second)
    torch.testing.assert_close(trained.net[0].weight, (first + second) / 2, rtol=1e-6, atol=1e-8)


def test_ten_in_a_row_stop_and_name_the_batches_and_keep_the_checkpoint(tmp_path):
    with (
        RunDirectory(tmp_path / "run") as run,
        pytest.raises(UndriftError, match=r"10 times in a row, in the batches 7 to 16") as caught,
    ):
        train(make_net(), bad_at(set(range(8, 30)), "loss"), make_batch, settings=replace(STEPS, save_steps=5), run=run)
    assert "are kept" in str(caught.value)
    assert caught.value.exit_code == 1
    state = load_tensors(tmp_path / "run" / "checkpoints" / "step-00000005" / "state.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def poison(batch, net, key):
        loss, diagnostics = objective(batch, net, key)
        if poison.step == 12:
            with torch.no_grad():
                net.scale[0] = math.nan  # a buffer: neither loss nor gradient tells
        poison.step += 1
        return loss, diagnostics

    poison.step = 0
    with (
        RunDirectory(tmp_path / "run") as run,
        pytest.raises(UndriftError, match=r"weights are NaN.*net\.scale.*checkpoint is refused"),
    ):
        train(make_net(), poison, make_batch, settings=replace(STEPS, save_steps=5), run=run)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000005",
        "step-00000010",
    ]


class FakeClock:
    """Seconds that pass only where the test says so, so that a budget can be held to the digit on a busy machine."""

    def __init__(self, monkeypatch, step, validation, save=0.0):
        self.now, self.costs = 0.0, (step, validation)
        monkeypatch.setattr("undrift.train.loop.time", self)
        write = Checkpoints.save

        def slow_save(*args):
            self.now += save
            return write(*args)

        monkeypatch.setattr(Checkpoints, "save", slow_save)

    def perf_counter(self):
        return self.now

    def objective(self, batch, net, key):
        cost = self.costs[0] if net.training else self.costs[1]
        self.now += cost() if callable(cost) else cost
        return objective(batch, net, key)


@pytest.mark.parametrize("step", [0.5, 1.7, lambda: next(UNEVEN)])
@pytest.mark.parametrize("validation", [0.01, 1.5])
def test_budget_bounds_the_loop_and_is_used(step, validation, tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch, step, validation, save=0.7)
    settings = Settings(budget=60.0, seed=3, save_every=11.0)
    shares = []
    with RunDirectory(tmp_path / "run") as run:
        trained = train(
            make_net(), clock.objective, make_batch, settings=settings, validation=[make_batch(1), make_batch(2)], run=run,
            progress=lambda share, facts: shares.append((clock.now, share, facts)),
        )  # fmt: skip
    assert trained.stop == "budget"
    assert 0.95 * 60 <= trained.seconds <= 60 + 1e-9
    assert trained.saving_seconds == pytest.approx(0.7 * (1 + int(60 / 11.0)), abs=0.71)
    assert trained.seconds + trained.saving_seconds == pytest.approx(clock.now)
    assert trained.history[-1][0] == trained.steps
    assert 2 * validation * (len(trained.history) - 2) < 60 / 11  # all but the first and the last
    assert len(trained.history) <= 21
    assert shares[-1][1] == 1.0
    assert all(share == pytest.approx(facts["seconds"] / 60.0) for _, share, facts in shares[:-1])
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert sum(line["images_per_s"] for line in lines) / len(lines) == pytest.approx(
        8 * trained.steps / (trained.seconds - 2 * validation * len(trained.history)), rel=0.4
    )
    if step == 0.5:
        for line in lines[1:]:
            assert line["lr"] == pytest.approx(learning_rate((line["seconds"] - 0.25) / 60, 1e-3, 0.05), rel=1e-3)


UNEVEN = iter([9.0] + [0.3, 0.5, 0.4, 0.9] * 1000)


def test_budget_on_the_real_clock():
    def slow(batch, net, key):
        time.sleep(0.01)
        return objective(batch, net, key)

    shares = []
    for _ in range(5):  # another process may take the machine for a tenth of a second
        shares.clear()
        began = time.perf_counter()
        trained = train(
            make_net(),
            slow,
            make_batch,
            settings=Settings(budget=1.5),
            validation=[make_batch(1)],
            progress=lambda *now: shares.append(now),
        )
        wall = time.perf_counter() - began
        if 0.95 * 1.5 <= trained.seconds <= 1.05 * 1.5 and wall <= 1.1 * 1.5:
            break
    else:
        pytest.fail(f"{trained.seconds} s of training in {wall} s for a budget of 1.5 s")
    assert 4 <= len(shares) <= 8  # about four times a second


def test_budget_counts_the_parts_of_a_resumed_run_together(tmp_path, monkeypatch):
    clock = FakeClock(monkeypatch, 0.5, 0.1)
    settings = Settings(budget=30.0, seed=3)

    def stopped(batch, net, key):
        if clock.now > 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return clock.objective(batch, net, key)

    with RunDirectory(tmp_path / "run") as run, pytest.raises(Interrupted) as caught:
        train(make_net(), stopped, make_batch, settings=settings, run=run)
    assert caught.value.exit_code == 75
    first = clock.now
    assert 12.5 <= first <= 13.5
    clock.now += 1000
    with RunDirectory(tmp_path / "run", resume=True) as run:
        trained = train(make_net(), clock.objective, make_batch, settings=settings, run=run)
    assert trained.seconds == pytest.approx(30.0)
    assert clock.now == pytest.approx(1000 + 30.0)
    assert trained.parts == 2
    assert trained.steps == 60
    with RunDirectory(tmp_path / "run", resume=True) as run:
        assert train(make_net(), clock.objective, make_batch, settings=settings, run=run).was_finished
    with RunDirectory(tmp_path / "run", resume=True) as run:
        longer = train(make_net(), clock.objective, make_batch, settings=replace(settings, budget=40.0), run=run)
    assert longer.seconds == pytest.approx(40.0)
    assert longer.steps == 80
    rates = {line["step"]: line["lr"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert rates[60] == pytest.approx(learning_rate(59.5 / 60, 1e-3, 0.05), rel=1e-3)
    assert rates[61] == pytest.approx(learning_rate(60.5 / 80, 1e-3, 0.05), rel=1e-3)


def test_a_budget_of_less_than_a_step_takes_one_step():
    trained = train(make_net(), objective, make_batch, settings=Settings(budget=1e-6), validation=[make_batch(1)])
    assert trained.steps == 1
    assert len(trained.history) == 1


@pytest.fixture
def meta():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_no_tensor_is_made_without_its_device(meta, tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        train(make_net(), objective, make_batch, settings=replace(STEPS, steps=6), validation=[make_batch(1)], run=run)
    with RunDirectory(tmp_path / "run", resume=True) as run:
        trained = train(
            make_net(), objective, make_batch, settings=replace(STEPS, steps=12), validation=[make_batch(1)], run=run
        )
    assert trained.steps == 12
    assert {value.device.type for value in trained.net.state_dict().values()} == {"cpu"}


def test_a_batch_maker_that_forgets_the_device_is_found_out(meta):
    def forgetful(step):
        batch = make_batch(step)
        return replace(batch, x=batch.x + torch.zeros(3))

    with pytest.raises(RuntimeError, match="meta"):
        train(make_net(), objective, forgetful, settings=STEPS)


@pytest.mark.parametrize(
    ("bad", "says"),
    [({}, "steps is None and budget is None"), ({"steps": 5, "budget": 3.0}, "steps is 5 and budget is 3.0"),
     ({"steps": 0}, "steps is 0,"), ({"budget": math.nan}, "budget is nan,"),
     ({"steps": 5, "learning_rate": math.nan}, "learning_rate is nan,"), ({"steps": 5, "warmup": 1.0}, "warmup is 1.0,"),
     ({"steps": 5, "patience": 0}, "patience is 0,"), ({"steps": 5, "betas": (0.9, 1.0)}, "betas is"),
     ({"steps": 5, "clip": 0.0}, "clip is 0.0,")],
)  # fmt: skip
def test_settings_out_of_range(bad, says):
    with pytest.raises(UsageError, match=says):
        Settings(**bad)


# --- signals and log -------------------------------------------------------------------------------------------------


def test_handlers_come_back_and_the_second_ctrl_c_is_obeyed(capfd):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.name == "SIGINT"
        assert "press Ctrl-C again" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_signal_whose_error_was_lost_is_not_the_last_one_obeyed(monkeypatch):
    now, went_on_after = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def signalled(name):
        os.kill(os.getpid(), getattr(signal, name))
        went_on_after.append(name)

    with pytest.raises(Interrupted, match="stopped by SIGTERM; do this"), ended_by_signals(lambda: "do this"):
        with contextlib.suppress(Exception):  # as a library may
            signalled("SIGTERM")
        now[0] += 4.9
        signalled("SIGUSR1")  # too soon: time to put things away
        now[0] += 0.2
        signalled("SIGTERM")
    assert went_on_after == ["SIGUSR1"]


def test_an_error_after_a_signal_that_was_lost_stays_what_it_is():
    with pytest.raises(ValueError, match="another thing"), ended_by_signals(lambda: "do this"):
        with contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("another thing")


def test_an_error_that_a_library_made_of_a_signal_is_the_signal():
    with pytest.raises(Interrupted, match="stopped by SIGTERM; do this"), ended_by_signals(lambda: "do this"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted as error:
            raise OSError("could not be written") from error


def test_in_another_thread_signals_are_left_alone():
    names = []

    def run():
        with Stop() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert names == [None]


def test_log_is_json_without_nan_and_cut_where_asked(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(
            "train",
            1,
            0.5,
            {"loss": math.nan, "loss_by_noise": torch.tensor([1.0, math.nan, math.inf]), "n": np.float64(2)},
        )
        size = log.size
        log.write("train", 2, 1.0, {"loss": 1.0})
    path.write_bytes(path.read_bytes() + b'{"kind": "train", "st')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    first = json.loads(path.read_text().splitlines()[0], parse_constant=pytest.fail)
    assert first == {
        "kind": "train",
        "step": 1,
        "seconds": 0.5,
        "loss": None,
        "loss_by_noise": [1.0, None, None],
        "n": 2.0,
    }
    with MetricsLog(path, size) as log:
        log.write("train", 2, 1.5, {"loss": 3.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(1, None), (2, 3.0)]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    with MetricsLog(tmp_path / "no" / "such" / "metrics.jsonl") as log:
        log.write("train", 1, 0.0, {"loss": 1.0})
    assert "training goes on without it" in caplog.text
    if os.path.exists("/dev/full"):
        with MetricsLog(None) as log:
            log._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115
            log.write("train", 1, 0.0, {"loss": 1.0})
            assert log._file is None


def test_tally_leaves_out_what_was_not_measured():
    tally = Tally()
    tally.add({"loss": 1.0, "by": torch.tensor([1.0, math.nan, math.nan])})
    tally.add({"loss": math.nan, "by": torch.tensor([3.0, 4.0, math.nan])})
    tally.add({"loss": 2.0, "by": torch.tensor([5.0, math.nan, math.nan])})
    means = tally.take()
    assert float(means["loss"]) == 1.5
    np.testing.assert_array_equal(means["by"], [3.0, 4.0, math.nan])
    assert tally.take() == {}
