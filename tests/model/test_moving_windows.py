"""Windows of rain that moves: one prediction in training, forecasts and samples, and records of a few windows."""

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

import undrift
from undrift.data.motion_law import MotionLaws
from undrift.train.stop_rows import near, stop_rows

MINUTES = np.timedelta64(5, "m")


def rain(frames=40, n=48, seed=0):
    """Rain in steps of 0.1 that moves by (1, -2) cells a frame over a periodic domain, and slowly is another."""
    rng, step = np.random.default_rng(seed), np.float32(0.1)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))
    field, out = np.zeros((n, n)), []
    for _ in range(frames + 20):
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * np.exp(-80 * k**2)).real
        field = 0.95 * np.roll(field, (1, -2), (0, 1)) + np.sqrt(1 - 0.95**2) * noise / noise.std()
        out.append(step * np.round(np.maximum(field, 0) ** 2 / step))
    times = np.datetime64("2010-08-26T00:00", "ns") + MINUTES * np.arange(frames)
    values = np.array(out[20:], np.float32)
    coords = {"time": times, "y": np.arange(float(n)), "x": np.arange(float(n))}
    return xr.Dataset({"rain": (("time", "y", "x"), values, {"units": "mm/h"})}, coords)


@pytest.fixture(scope="module")
def record():
    return rain()


@pytest.fixture(scope="module")
def model(record, tmp_path_factory):
    run = tmp_path_factory.mktemp("rain") / "RUN"
    settings = {"net.channels": "8,8", "codec.linear": False, "train.batch": 4, "sample.nfe": 4}
    undrift.fit(
        record, task=undrift.Window(past=2, future=3), steps=3, crop=16, periodic="y,x", set=settings, out=run,
        progress=False,
    )  # fmt: skip
    return undrift.load(run, data=record)


def test_motion_is_chosen_where_it_tells_more_and_is_kept_with_the_run(model):
    law = model.codec.motion_laws
    assert isinstance(law, MotionLaws) and (law.of(None).past, law.of(None).frames) == (2, 5)
    assert law.periodic == (True, True)
    assert (np.diff(law.of(None).std[0, :, 0]) > 0).all()  # less is known of later frames


def test_training_sees_the_part_of_what_forecasts_see_as_a_whole(record):
    from undrift.config import Config
    from undrift.data.open import open_fields
    from undrift.train.prepare import prepare

    config = Config()
    config.train.crop, config.codec.linear = 16, False
    target = open_fields(record, periodic=["y", "x"])
    task = undrift.Window(past=2, future=3)
    problem = prepare(target, None, task, config)
    rows, window = problem.fit_rows[[0, 3]], (slice(5, 21), slice(30, 46))
    assert problem.codec.motion_laws is not None
    problem.task = Always(2, 3)
    part = problem.encode(rows, window, np.random.default_rng(0))
    whole = problem.encode(rows, None, np.random.default_rng(0), known=problem.past(rows))
    cut = (slice(None), slice(None), *window)
    assert part.fields["reached"][:, 2:].all() and not part.fields["reached"][:, :2].any()
    for name in ("asked", "carried", "reached", "doubt", "expected"):
        np.testing.assert_array_equal(part.fields[name], whole.fields[name][cut])
    wet = problem.pair.target.read(rows, window) > 0
    np.testing.assert_array_equal(part.x[wet], whole.x[cut][wet])  # dry cells have latents of each draw's own
    problem.task = Always(2, 3, after=True)
    later = problem.pair.target.read(rows)
    later[:, :2] = np.nan
    part = problem.encode(rows, window, np.random.default_rng(0))
    whole = problem.encode(rows, None, np.random.default_rng(0), known=later)
    assert part.fields["reached"][:, :2].all() and not part.fields["reached"][:, 2:].any()
    for name in ("asked", "carried", "reached", "doubt", "expected"):
        np.testing.assert_array_equal(part.fields[name], whole.fields[name][cut])
    nothing = problem.encode(rows, None, np.random.default_rng(0), known=problem.nothing(rows))
    assert not nothing.fields["carried"].any() and not nothing.fields["reached"].any()


@dataclass(frozen=True)
class Always(undrift.Window):
    """Windows whose past is given, or what is after it."""

    after: bool = False

    def draw(self, shape, count, rng, variables=None, coarse=False):
        return np.broadcast_to((np.arange(shape[0]) < 2)[:, None, None] != self.after, (count, *shape))


def test_forecasts_samples_and_windows_held_out_are_told_the_same(model, record, monkeypatch):
    """To the bit; and rain is nowhere negative, and dry where the record has no rain that weak."""
    told, put = [], MotionLaws.put

    def spy(self, ahead, there, fold, mean, std):
        found = put(self, ahead, there, fold, mean, std)
        told.append((mean[0].copy(), std[0].copy(), found[0][0]))
        return found

    monkeypatch.setattr(MotionLaws, "put", spy)
    start = model.holdout_truth().time.values[2]
    forecast = model.forecast(record, init=np.array([start]), steps=3, realizations=1, progress=False)
    last = record.sel(time=slice(start - MINUTES, start))
    sample = model.sample(last, realizations=1, progress=False)
    held = model.sample(holdout=True, know="past", at=f"time={str(start)[:19]}", realizations=1, progress=False)
    assert len(told) == 3 and np.abs(told[0][2]).max() > 0
    for other in told[1:]:
        for mine, theirs in zip(told[0], other):
            np.testing.assert_array_equal(mine[2:], theirs[2:])
    np.testing.assert_array_equal(sample.rain.values[..., :2, :, :].squeeze(), last.rain.values)
    for ensemble in (forecast, sample, held):
        values = ensemble.rain.values
        weak = (values > 0) & (values < 0.05)
        assert values.min() == 0 and not weak.any() and (values == 0).mean() > 0.1


def test_windows_that_overlap_all_validation_blocks_have_one_block_at_the_beginning():
    """49 windows of 16 frames: three blocks within would leave none that shares no frame with them."""
    few, many = np.arange(49), np.arange(600)
    assert near(few, stop_rows(few, 1), 16).all()
    np.testing.assert_array_equal(stop_rows(few, 16), np.arange(5))
    np.testing.assert_array_equal(stop_rows(many, 16), stop_rows(many, 1))
    assert (~near(few, stop_rows(few, 16), 16)).sum() == 29


def test_a_record_of_a_few_hours_has_no_cycle_of_the_day(model):
    assert model.codec.covariates.width == 0
