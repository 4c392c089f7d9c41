"""Bad input: each fault is injected, and the one sentence names the file and what to do."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import xarray as xr
from data_grids import grid

from undrift.data.open import open_fields
from undrift.data.split import split
from undrift.errors import DataError, UsageError


def refused(data, **options) -> str:
    """The sentence with which data are refused, which must be one line and name the file."""
    with pytest.raises(DataError) as caught:
        fields = open_fields(data, **options)
        fields.read(range(len(fields)))
    text = str(caught.value)
    assert "\n" not in text
    if not isinstance(data, list | xr.Dataset | np.ndarray):
        assert str(data) in text
    return text


# Row 30: NaN is missing, Inf is an error.


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_inf_is_refused_by_variable_time_and_count(value):
    ds = grid(12)
    ds.t2m.values[4, 1, 1] = value
    ds.t2m.values[6, :2, 0] = value
    fields = open_fields(ds)
    with pytest.raises(DataError, match=r"t2m has 3 infinite values.*time=2001-01-05"):
        fields.read([0])
    scan = fields.scan()
    assert scan.inf.tolist() == [3] and scan.first_inf.tolist() == [4] and scan.count.tolist() == [12 * 35 - 3]


def test_inf_in_a_static_field_is_refused_and_nan_is_not(tmp_path):
    ds = grid(12)
    ds["oro"] = ds.t2m.isel(time=0, drop=True).copy()
    ds.oro.values[1, :2] = np.nan
    assert list(open_fields(ds).static) == ["oro"]
    ds.oro.values[3, 3:5] = np.inf
    with pytest.raises(DataError, match="'oro' has 2 infinite values"):
        open_fields(ds)
    ds[["oro"]].to_netcdf(tmp_path / "oro.nc")
    with pytest.raises(DataError, match="'oro' has 2 infinite values"):
        open_fields(grid(12), static=str(tmp_path / "oro.nc"))
    assert len(open_fields(ds, select="lat=30/40")) == 12


def test_values_beyond_float32_are_refused():
    ds = grid(3)
    ds["t2m"] = ds.t2m.astype(np.float64)
    ds.t2m.values[1, 0, 0] = 1e39
    with pytest.raises(DataError, match="beyond float32"):
        open_fields(ds).read([1])


def test_inf_in_the_window_of_files_too_big_for_memory(monkeypatch):
    monkeypatch.setattr("undrift.data.fields.MEMORY_LIMIT", 0)
    ds = grid(5)
    ds.t2m.values[3, 2, 2] = np.inf
    fields = open_fields(ds)
    assert np.isfinite(fields.read([0, 1, 2])).all()
    with pytest.raises(DataError, match="time=2001-01-04"):
        fields.read([0, 3])


def test_missing_values_are_told_apart():
    ds = grid(10)
    ds.t2m.values[:, 0, 0] = np.nan  # a mask
    ds.t2m.values[2] = np.nan  # a missing frame
    ds.t2m.values[5, 3, 3] = np.nan  # a hole
    scan = open_fields(ds).scan()
    assert scan.mask_nan.tolist() == [10] and scan.frame_nan.tolist() == [34] and scan.occasional_nan.tolist() == [1]
    assert scan.nan.tolist() == [45]
    assert np.flatnonzero(scan.missing[:, 0]).tolist() == [2]
    assert np.argwhere(scan.always_nan[0]).tolist() == [[0, 0]]


# Row 31: values that look like fills.


@pytest.mark.parametrize("bad", [1e20, -999.0, -9999.0, 9.96921e36])
def test_bare_fill_values_are_counted_and_left(bad):
    ds = grid(10)
    ds.t2m.values[1, 1, :4] = bad
    fields = open_fields(ds)
    scan = fields.scan()
    assert [(s.channel, s.value, s.count) for s in scan.suspicious] == [("t2m", pytest.approx(bad, rel=1e-6), 4)]
    assert fields.counts["suspicious"]["t2m"]["count"] == 4
    assert fields.read([1])[0, 0, 1, 0] == np.float32(bad)


@pytest.mark.parametrize("bad", [1e20, -999.0])
def test_a_split_warns_of_bare_fill_values_in_its_one_pass(bad, monkeypatch):
    ds = grid(30)
    ds.t2m.values[1, 1, :4] = bad
    ds.t2m.values[2, 0, 0] = np.nan
    fields = open_fields(ds)
    reads, read = [], fields.read

    def counted(indices, window=None):
        reads.append(len(indices))
        return read(indices, window)

    monkeypatch.setattr(fields, "read", counted)
    text = f"t2m has 4 times {bad:g}, which looks like an undeclared fill value"
    assert [w for w in split(fields, "time=2001-01-30").warnings if w.startswith(text)]
    assert sum(reads) == 30
    assert split(open_fields(grid(30))).warnings == []


def test_ordinary_values_are_not_suspicious():
    ds = grid(10) * 0 + np.linspace(-1500.0, 1500.0, 350).reshape(10, 5, 7)
    ds.t2m.values[0, 0, 0] = -999.0
    ds.t2m.values[3, 0, 0] = 999.0
    assert open_fields(ds).scan().suspicious == []


# Row 32: missing chunks.


@pytest.mark.parametrize("version", [2, 3])
def test_a_missing_chunk_is_reported_as_such(tmp_path, version):
    path = tmp_path / "a.zarr"
    grid(12).chunk(time=4).to_zarr(path, zarr_format=version)
    assert "missing_chunks" not in open_fields(path).counts
    key = "c/1/0/0" if version == 3 else "1.0.0"
    (path / "t2m" / key).unlink()
    fields = open_fields(path)
    assert fields.counts["missing_chunks"] == {"t2m": 1}
    assert any(f"1 of 3 chunks of 't2m' are missing, the first is {key}" in text for text in fields.warnings)


def test_a_variable_that_was_never_written_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    grid(12).chunk(time=4).to_zarr(path, compute=False)
    assert "never written" in refused(path)


def test_a_mask_that_was_never_written_is_no_fault(tmp_path):
    ds = grid(12)
    ds.t2m.values[:, :, :4] = np.nan
    ds.chunk(time=4, lon=4).to_zarr(tmp_path / "a.zarr", encoding={"t2m": {"write_empty_chunks": False}})
    fields = open_fields(tmp_path / "a.zarr")
    assert fields.counts["masked_chunks"] == {"t2m": 3} and "missing_chunks" not in fields.counts


# Row 33: channels without variation.


def test_constant_and_empty_channels_are_named():
    ds = grid(6)
    ds["flat"] = ds.t2m * 0 + 101325.0
    ds["void"] = ds.t2m * np.nan
    scan = open_fields(ds).scan()
    assert scan.constant.tolist() == [False, True, False] and scan.empty.tolist() == [False, False, True]
    assert scan.std[1] == 0.0 and scan.mean[1] == 101325.0 and np.isnan(scan.mean[2])


# Row 40: any size.


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 1), (3, 2)])
def test_small_and_odd_domains_open(shape):
    array = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    fields = open_fields(array, dims="sample,y,x")
    np.testing.assert_array_equal(fields.read([3])[0, 0], array[3])
    ds = grid(4, lat=np.arange(shape[0]), lon=np.arange(shape[1]))
    assert open_fields(ds).layout.shape == shape and open_fields(ds).layout.periodic == (False, False)


# Row 43: damaged and malicious files.


def test_truncated_netcdf4(tmp_path):
    path = tmp_path / "a.nc"
    grid(40).to_netcdf(path, engine="netcdf4")
    whole = path.read_bytes()
    for size in (9, len(whole) // 2, len(whole) - 50):
        path.write_bytes(whole[:size])
        assert "truncated or damaged" in refused(path)


def test_truncated_netcdf3(tmp_path):
    path = tmp_path / "a.nc"
    grid(40).to_netcdf(path, format="NETCDF3_CLASSIC", engine="netcdf4")
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in refused(path)


def test_damaged_values_inside_a_netcdf_are_an_error_when_read(tmp_path):
    path = tmp_path / "a.nc"
    grid(100, np.arange(30), np.arange(40)).to_netcdf(path, engine="netcdf4", encoding={"t2m": {"fletcher32": True}})
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert "cannot be read" in refused(path)


@pytest.mark.parametrize("content", ["", "{", '{"zarr_format": 9, "node_type": "group"}', "[]", "\x00\xff"])
def test_broken_zarr_json(tmp_path, content):
    path = tmp_path / "a.zarr"
    grid(4).to_zarr(path)
    (path / "zarr.json").write_text(content)
    refused(path)


def test_broken_metadata_of_an_array(tmp_path):
    path = tmp_path / "a.zarr"
    grid(4).to_zarr(path, consolidated=False)
    (path / "t2m" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"')
    refused(path)


def npy_bytes(shape: tuple[int, ...], descr: str = "<f8", data: bytes = b"") -> bytes:
    header = str({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_npy_that_claims_80_tb_allocates_nothing(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes((10_000_000, 1000, 1000), data=bytes(64)))
    tracemalloc.start()
    text = refused(path, dims="sample,y,x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "claims shape (10000000, 1000, 1000)" in text and peak < 20e6


def test_npz_member_that_claims_80_tb(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_bytes((10_000_000, 1000, 1000), data=bytes(64)))
    with pytest.raises(DataError, match=r"a\.npz\[a\]: claims shape"):
        open_fields(path, dims="sample,y,x")


class Payload:
    """Would create a file if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_object_arrays_are_never_unpickled(tmp_path, suffix):
    trap = tmp_path / "trap"
    array = np.array([Payload(str(trap))] * 3, dtype=object).reshape(3, 1, 1)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, a=array)
    with pytest.raises(DataError, match="Python objects"):
        open_fields(path, dims="sample,y,x")
    assert not trap.exists()


def test_damaged_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 4, 4)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    assert "truncated" in refused(tmp_path / "a.npy", dims="sample,y,x")
    (tmp_path / "a.npy").write_bytes(whole[:20])
    assert "damaged" in refused(tmp_path / "a.npy", dims="sample,y,x")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((5, 4, 4)))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue()[:300])
    assert "damaged" in refused(tmp_path / "a.npz", dims="sample,y,x")


# Row 44: the wrong thing.


def test_text_named_nc(tmp_path):
    path = tmp_path / "a.nc"
    path.write_text("<html>404 not found</html>")
    assert "is text (it starts '<html>" in refused(path)


def test_empty_file_directory_and_missing(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"")
    assert "empty" in refused(tmp_path / "a.nc")
    (tmp_path / "d").mkdir()
    assert "no Zarr store" in refused(tmp_path / "d")
    assert "did you mean 'a.nc'" in refused(tmp_path / "aa.nc")
    assert "no file matches" in refused(str(tmp_path / "*.grib"))
    with pytest.raises(DataError, match="no data given"):
        open_fields([])


def test_netcdf_under_another_name_is_read_by_its_content(tmp_path):
    grid(3).to_netcdf(tmp_path / "weather.dat", engine="netcdf4")
    read = open_fields(tmp_path / "weather.dat").read(np.arange(3))
    np.testing.assert_array_equal(read, open_fields(grid(3)).read(np.arange(3)))


def test_grib_says_how_to_convert(tmp_path):
    (tmp_path / "a.grib").write_bytes(b"GRIB\x00\x00\x00\x02" + bytes(100))
    assert "cdo -f nc copy" in refused(tmp_path / "a.grib")


def test_data_without_space_or_samples(tmp_path):
    with pytest.raises(DataError, match="--dims"):
        open_fields(xr.Dataset({"a": (("p", "q"), np.zeros((3, 4)))}))
    with pytest.raises(DataError, match="no variable has samples over space"):
        open_fields(grid(3).isel(time=0))
    with pytest.raises(
        DataError, match=r"'s' has dims \(time\) of float64; a field needs numbers over lat, lon and at least one"
    ):
        open_fields(grid(3).assign(s=("time", np.zeros(3))), variables="s")


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ("sample,sample,x", "names must be different and not empty"),
        ("a,b,c", "none is space"),
        ("sample,,x", "names must be different and not empty"),
    ],
)
def test_dims_that_cannot_be(dims, says):
    with pytest.raises(UsageError, match=f"--dims {dims}: {says}"):
        open_fields(np.zeros((3, 4, 5)), dims=dims)


def test_wrong_number_of_dims():
    with pytest.raises(DataError, match=r"names 2 dimensions and the shape is \(3, 4, 5\).*--dims sample,y,x"):
        open_fields(np.zeros((3, 4, 5)), dims="y,x")


def test_complex_and_text_arrays_are_refused():
    with pytest.raises(DataError, match="complex128"):
        open_fields(np.zeros((3, 4, 5), complex), dims="sample,y,x")


@pytest.mark.parametrize("kind", [str, object])
def test_a_variable_of_text_is_named(tmp_path, kind):
    ds = grid(3)
    ds["t2m"] = ds.t2m.astype(str).astype(kind)
    ds.to_netcdf(tmp_path / "a.nc")
    assert "'t2m' holds text, and fields need numbers" in refused(tmp_path / "a.nc")
    assert "'t2m' has dims" in refused(tmp_path / "a.nc", variables="t2m")


# Row 45: read-only input.


def test_read_only_input(tmp_path):
    grid(4).to_netcdf(tmp_path / "a.nc")
    grid(4).to_zarr(tmp_path / "a.zarr")
    for path in [tmp_path / "a.nc", *(tmp_path / "a.zarr").rglob("*"), tmp_path / "a.zarr", tmp_path]:
        path.chmod(0o444 if path.is_file() else 0o555)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    try:
        for name in ("a.nc", "a.zarr"):
            fields = open_fields(tmp_path / name)
            np.testing.assert_array_equal(fields.read(range(4))[:, 0], grid(4).t2m.values)
        assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    finally:
        for path in [tmp_path, tmp_path / "a.zarr", *(tmp_path / "a.zarr").rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)


def test_incomplete_input_warns(tmp_path):
    ds = grid(3)
    ds.attrs["complete"] = "false"
    assert any("incomplete" in text for text in open_fields(ds).warnings)


def test_times_that_cannot_be_decoded_are_numbers(tmp_path):
    ds = grid(3).assign_coords(time=("time", [0.0, 1.0, 2.0], {"units": "fortnights since whenever"}))
    ds.to_netcdf(tmp_path / "a.nc")
    fields = open_fields(tmp_path / "a.nc")
    assert fields.times().tolist() == [0.0, 1.0, 2.0] and any("cannot be decoded" in text for text in fields.warnings)
    assert json.dumps(fields.labels(1))


def test_groups_are_named(tmp_path):
    grid(3).to_netcdf(tmp_path / "a.nc", group="run1")
    assert "only groups (run1)" in refused(tmp_path / "a.nc")


def test_samples_of_parameters_are_told_which_task_reads_them(tmp_path):
    chain = xr.Dataset({"a": (("chain", "draw"), np.zeros((2, 9)))})
    chain.to_netcdf(tmp_path / "a.nc", group="posterior")
    assert "type --task density for its posterior" in refused(tmp_path / "a.nc")
    assert "samples of parameters type --task density" in refused(chain)
    assert "--task density" not in refused(chain.rename(draw="station"))
