"""Members of one date: which are given to which, and the law of those that are missing."""

import numpy as np
import pytest
import xarray as xr

from undrift.data.member_law import MemberLaw
from undrift.data.members import date_of, ensemble_of, given_to, offered_members, others_of, reordered
from undrift.data.open import open_fields
from undrift.data.split import split
from undrift.errors import DataError, UsageError
from undrift.tasks import Enrich


def ensemble(dates=12, members=4, order=("time", "number", "lat", "lon"), dim="number"):
    """Each value says which it is: 1000 date + 10 member + cell."""
    t, m, c = np.meshgrid(np.arange(dates), np.arange(members), np.arange(12), indexing="ij")
    values = (1000 * t + 10 * m + c / 100).reshape(dates, members, 3, 4).astype(np.float32)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(dates) * np.timedelta64(1, "D"),
        dim: (dim, 5 * np.arange(members), {"standard_name": "realization"}),
        "lat": ("lat", np.arange(3.0), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(4.0), {"units": "degrees_east"}),
    }
    ds = xr.Dataset({"tas": (("time", dim, "lat", "lon"), values, {"units": "K"})}, coords)
    return ds.transpose(*(dim if d == "number" else d for d in order))


def which(values):
    """(date, member) of values (n, C, *space)."""
    first = values[..., 0, 0]
    return first // 1000, first % 1000 // 10


@pytest.mark.parametrize("order", [("time", "number", "lat", "lon"), ("number", "time", "lat", "lon")])
def test_a_member_is_given_others_of_its_date(order):
    target = ensemble_of(open_fields(ensemble(order=order)))
    given, rows = others_of(target, 3), np.arange(48)
    date, member = which(target.read(rows)[:, 0])
    np.testing.assert_array_equal(date, rows // 4)
    np.testing.assert_array_equal(member, rows % 4)
    dates, others = which(given.read(rows))
    assert (dates == date[:, None]).all()
    assert (np.sort(np.concatenate([others, member[:, None]], 1), 1) == np.arange(4)).all()
    for place in range(3):  # so that statistics of each place are those of all members
        np.testing.assert_array_equal(np.sort(others[:, place].reshape(12, 4), 1), np.tile(np.arange(4), (12, 1)))
    np.testing.assert_array_equal(given.dataset.tas.values.reshape(48, 3, 3, 4), given.read(rows))
    assert [c.label for c in given.layout.channels] == [f"tas[given_member={k}]" for k in range(3)]


def test_their_order_is_drawn_anew_and_any_order_is_as_likely():
    target = ensemble_of(open_fields(ensemble(dates=400)))
    given, rows = others_of(target, 2), np.arange(0, 1600, 4)
    again = reordered(given, np.random.default_rng(1))
    first, second = (which(f.read(rows))[1] for f in (given, again))
    assert (first != second).any(1).mean() > 0.5
    np.testing.assert_array_equal(which(reordered(given, np.random.default_rng(1)).read(rows))[1], second)
    pairs, counts = np.unique(second, axis=0, return_counts=True)
    assert len(pairs) == 6 and (np.abs(counts - 400 / 6) < 4.5 * np.sqrt(400 / 6)).all()
    assert reordered(target, np.random.default_rng(1)) is target


def test_all_members_of_a_date_train_or_are_held_out():
    pair = Enrich(2).pair(open_fields(ensemble(dates=40)))
    for holdout in ("20%", "time=2001-01-05/2001-01-09", "number=5", "number=5,time=2001-01-05/2001-01-09"):
        if holdout == "number=5":
            with pytest.raises(DataError, match="leaves none of 160 samples for training"):
                split(pair.target, holdout)
            continue
        parts = split(pair.target, holdout)
        train, held = (set(date_of(pair.target, rows)) for rows in (parts.train, parts.holdout))
        assert held and not train & held
        assert len(parts.train) == 4 * len(train)


def test_an_ensemble_that_a_single_field_is_given_becomes_levels():
    single = open_fields(ensemble().isel(number=0, drop=True))
    given = given_to(single, open_fields(ensemble(members=3)))
    assert given.layout.sample == ("time",) and given.layout.members == 3
    dates, members = which(given.read(np.arange(12)))
    assert (dates == np.arange(12)[:, None]).all() and (np.sort(members, 1) == np.arange(3)).all()
    both = open_fields(ensemble())
    assert given_to(both, both) is both and given_to(both, single) is single


def test_the_members_of_a_file_are_given_in_its_order_and_the_rest_are_missing():
    data = ensemble(members=2, dim="realization")
    fields, labels = offered_members(open_fields(data), 3)
    values = fields.read(np.arange(12))
    np.testing.assert_array_equal(values[:, :2], data.tas.values)
    assert np.isnan(values[:, 2]).all() and labels.dims == ("given_member",)
    np.testing.assert_array_equal(labels.values, [0, 5])
    np.testing.assert_array_equal(fields.dataset.tas.isel(given_member=1).values, data.tas.values[:, 1])
    alone, _ = offered_members(open_fields(data.isel(realization=0, drop=True)), 2)
    np.testing.assert_array_equal(alone.read(np.arange(12))[:, 0], data.tas.values[:, 0])


BAD = {
    "there are 4 members along 'number', expected more than the 4": lambda: Enrich(4).pair(open_fields(ensemble())),
    "have 4 members along 'number', and the model is given 2 at most; choose some with --at number=0/1": lambda: (
        offered_members(open_fields(ensemble()), 2)
    ),
    "needs an ensemble: a dim such as number": lambda: ensemble_of(open_fields(ensemble().isel(number=0, drop=True))),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_given_is_refused(message):
    with pytest.raises((DataError, UsageError), match=message):
        BAD[message]()


SHARED = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, 0.2], [0.1, 0.2, 0.5]])
OWN = np.array([[0.5, -0.2, 0.0], [-0.2, 0.8, 0.3], [0.0, 0.3, 0.6]])


def samples(n, members, rng):
    """z_k = s + e_k with these covariances, (n, members x 3)."""
    s, e = rng.multivariate_normal(np.zeros(3), SHARED, n), rng.multivariate_normal(np.zeros(3), OWN, (n, members))
    return (s[:, None] + e).reshape(n, -1)


def joint(members):
    return np.kron(np.ones((members, members)), SHARED) + np.kron(np.eye(members), OWN)


def test_the_law_of_members_has_their_components_of_variance():
    """Within standard errors of the components; the covariance of all numbers side by side."""
    n, members = 20_000, 3
    law = MemberLaw.fit(samples(n, members, np.random.default_rng(0)), members, 1)
    together = law.together
    got = together.modes.T.astype(float) @ np.diag(together.variances) @ together.modes + law.floor * np.eye(9)
    truth = joint(members)
    scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)) + truth**2) / np.sqrt(n)
    assert (np.abs(got - truth) < 4.5 * scale + 0.002).all()


@pytest.mark.parametrize("known", [1, 2])
def test_missing_members_are_drawn_given_the_others(known):
    """E[z_3 | z_1, z_2] = S_s (S_s + S_e / 2)^-1 times their mean, and its covariance, within standard errors."""
    members = 3
    law = MemberLaw.fit(samples(200_000, members, np.random.default_rng(1)), members, 1)
    z = np.array([1.5, -0.5, 0.8, 0.3, 1.1, -0.2, 0, 0, 0])
    z[3 * known :] = np.nan
    gain = SHARED @ np.linalg.inv(SHARED + OWN / known)
    mean = gain @ z[: 3 * known].reshape(known, 3).mean(0)
    np.testing.assert_allclose(law.fill(z, None)[-3:], mean, atol=0.02)
    rng, count = np.random.default_rng(2), 6000
    draws = np.stack([law.fill(z, rng)[-3:] for _ in range(count)])
    covariance = SHARED - gain @ SHARED + OWN
    assert (np.abs(draws.mean(0) - mean) < 4.5 * np.sqrt(np.diag(covariance) / count) + 0.02).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / np.sqrt(count)
    assert (np.abs(np.cov(draws.T) - covariance) < 4.5 * scale + 0.02).all()


def test_numbers_of_several_variables_are_in_their_places():
    """Two variables that have nothing to do with each other are as two laws."""
    rng, n = np.random.default_rng(3), 60_000
    one, two = samples(n, 2, rng), 3 * samples(n, 2, rng)
    law = MemberLaw.fit(np.concatenate([one, two], 1), 2, 2)
    z = np.concatenate([one[0], two[0]])
    z[[3, 4, 5, 9, 10, 11]] = np.nan  # the second member
    apart = [MemberLaw.fit(v, 2, 1).fill(np.r_[v[0, :3], np.full(3, np.nan)], None) for v in (one, two)]
    np.testing.assert_allclose(law.fill(z, None), np.concatenate(apart), atol=0.06)
    again = MemberLaw.from_arrays(law.to_arrays() | {"coarse_mean": np.zeros(2)}, 2)
    np.testing.assert_array_equal(again.fill(z, None), law.fill(z, None))
