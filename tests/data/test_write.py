"""What is written comes back, complete or not at all, and a flipped bit is noticed."""

import errno
import json
import os
import shlex
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from undrift.data.stores import BlockLog
from undrift.data.write import EnsembleWriter, open_ensemble
from undrift.errors import DataError, IncompleteError, UndriftError, UsageError


def make_template(members=3, years=4, shape=(5, 6), calendar="360_day"):
    lat2, lon2 = np.meshgrid(np.linspace(40, 44, shape[0]), np.linspace(-6, -1, shape[1]), indexing="ij")
    dims = ("realization", "scenario", "time", "y", "x")
    time = [cftime.datetime(2000 + i, 2, 30, calendar=calendar) for i in range(years)]
    zeros = xr.DataArray(np.zeros((members, 2, years, *shape), "f4"), dims=dims)
    return xr.Dataset(
        {
            "tas": zeros.assign_attrs(units="K", long_name="air temperature"),
            "ta": zeros.expand_dims(plev=[50000.0, 85000.0], axis=3).assign_attrs(units="K"),
        },
        coords={
            "scenario": ("scenario", np.array(["A1B", "E1"])),
            "time": ("time", np.array(time), {"standard_name": "time"}),
            "y": ("y", np.arange(shape[0]) * 1e3, {"units": "m"}),
            "lat": (("y", "x"), lat2, {"units": "degrees_north"}),
            "lon": (("y", "x"), lon2, {"units": "degrees_east"}),
        },
        attrs={"title": "ünï"},
    )


def fill(template, seed=0):
    rng = np.random.default_rng(seed)
    return template.map(lambda da: da.copy(data=rng.normal(size=da.shape).astype("f4")), keep_attrs=True)


@pytest.mark.parametrize("name", ["ENS.nc", "ENS.zarr"])
def test_blocks_in_any_order_come_back_with_all_labels(tmp_path, name):
    truth = fill(make_template())
    truth["tas"][0, 0, 0] = np.nan
    path = tmp_path / "new" / "folder" / name
    with EnsembleWriter(path, truth, sample=("scenario", "time")) as writer:
        for block in ([7, 0, 1], slice(2, 5), [6, 5]):
            for rows in (slice(2, 3), slice(0, 2)):
                flat = truth.isel(realization=rows).stack(s=("scenario", "time"))
                part = {v: flat[v].transpose("realization", "s", ...).values[:, np.r_[block]] for v in truth.data_vars}
                writer.write(rows, block, part)
        assert not path.exists()
    with open_ensemble(path) as back:
        assert back.attrs["complete"] == "true" and back.attrs["title"] == "ünï"
        for v in truth.data_vars:
            np.testing.assert_array_equal(back[v].values, truth[v].values)
            assert back[v].dims == truth[v].dims and back[v].units == "K" and back[v].dtype == np.float32
            assert {"lat", "lon", "scenario", "time"} <= set(back[v].coords)
        assert list(back.scenario.values) == ["A1B", "E1"]
        assert list(back.time.values) == list(truth.time.values)
        assert back.time.dt.calendar == "360_day"
        np.testing.assert_array_equal(back.lat, truth.lat)
        assert back.lat.units == "degrees_north" and back.realization.standard_name == "realization"
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_region_by_dims_and_datetime_coordinates(tmp_path, name):
    truth = fill(make_template()).drop_vars("ta")
    truth = truth.assign_coords(time=np.array(["2001-01-01T12", "2001-01-03", "2001-01-07", "2001-02-01"], "M8[ns]"))
    with EnsembleWriter(tmp_path / name, truth) as writer:
        for i in range(2):
            writer.write(slice(0, 3), {"scenario": i, "time": slice(0, 4)}, truth.isel(scenario=[i]))
    with open_ensemble(tmp_path / name) as back:
        np.testing.assert_array_equal(back.time.values, truth.time.values)
        np.testing.assert_array_equal(back.tas.values, truth.tas.values)


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_existing_result_is_refused_then_kept_until_the_new_is_complete(tmp_path, name):
    path, truth = tmp_path / name, fill(make_template()).drop_vars("ta")
    with EnsembleWriter(path, truth) as writer:
        writer.write(slice(0, 3), None, truth)
    with pytest.raises(UsageError, match="--overwrite"):
        EnsembleWriter(path, truth)
    with pytest.raises(ZeroDivisionError), EnsembleWriter(path, truth, overwrite=True) as writer:
        writer.write(0, None, truth.isel(realization=[0]) * 0)
        raise ZeroDivisionError
    with open_ensemble(path) as back:
        np.testing.assert_array_equal(back.tas.values, truth.tas.values)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with EnsembleWriter(path, truth, overwrite=True) as writer:
        writer.write(slice(0, 3), None, truth + 1)
    with open_ensemble(path) as back:
        np.testing.assert_array_equal(back.tas.values, truth.tas.values + np.float32(1))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_what_was_never_written_is_incomplete(tmp_path, name, caplog):
    path, truth = tmp_path / name, fill(make_template()).drop_vars("ta")
    with pytest.raises(IncompleteError, match=r"tas: 1 of 24 fields, the first at realization=2, scenario=1, time=3"):  # noqa: SIM117
        with EnsembleWriter(path, truth, sample=("scenario", "time")) as writer:
            writer.write(slice(0, 2), None, truth.isel(realization=slice(0, 2)))
            writer.write(2, range(7), {"tas": np.zeros((1, 7, 5, 6))})
    assert not path.exists()
    (partial,) = tmp_path.iterdir()
    assert "partial" in partial.name
    with pytest.raises(IncompleteError, match="incomplete"):
        open_ensemble(partial)
    with open_ensemble(partial, incomplete="warn") as back:
        np.testing.assert_array_equal(back.tas.values[:2], truth.tas.values[:2])
    assert "incomplete" in caplog.text


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_killed_writer_leaves_no_result(tmp_path, name):
    code = f"""
import os, signal, sys, numpy as np, xarray as xr
from undrift.data.write import EnsembleWriter
t = xr.Dataset({{"a": (("realization", "time", "x"), np.ones((4, 3, 8), "f4"))}})
w = EnsembleWriter({str(tmp_path / name)!r}, t)
w.write(0, None, t.isel(realization=[0]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(f".{name}.partial-")


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_every_flipped_bit_is_a_read_error(tmp_path, name):
    """Row 9: a bit is flipped in every part of the stored fields and coordinates; no wrong number is ever returned."""
    truth = fill(make_template(members=2, years=2, shape=(40, 50) if name == "E.nc" else (5, 6))).drop_vars("ta")
    path = tmp_path / name
    with EnsembleWriter(path, truth) as writer:
        writer.write(slice(0, 2), None, truth)
    if name == "E.zarr":
        targets = [p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json"]
        assert {p.relative_to(path).parts[0] for p in targets} >= {"tas", "lat", "lon", "time"}
        places = [(p, o) for p in targets for o in {0, p.stat().st_size // 2, p.stat().st_size - 1}]
        fields = path / "tas" / "c" / "0" / "0" / "0" / "0" / "0"
        places += [(fields, o) for o in range(3, fields.stat().st_size, 11)]
    else:
        size = path.stat().st_size
        places = [(path, o) for o in range(7, size, max(1, size // 60))]
    noticed = 0
    with open_ensemble(path) as back:
        whole = back.load()
    for file, offset in places:
        raw = bytearray(file.read_bytes())
        raw[offset] ^= 16
        good = bytes(raw[:offset]) + bytes([raw[offset] ^ 16]) + bytes(raw[offset + 1 :])
        file.write_bytes(raw)
        try:
            with open_ensemble(path) as back:
                same = np.array_equal(back.tas.values, whole.tas.values) and np.array_equal(back.lat.values, whole.lat)
            assert same, f"a flipped bit at {offset} of {file} changed the numbers unnoticed"
            read = name == "E.zarr" and file.relative_to(path).parts[0] in ("tas", "lat")
            assert not read, f"a flipped bit at {offset} of {file} was not noticed"
        except (DataError, IncompleteError, RuntimeError, ValueError, OSError, KeyError, AttributeError):
            noticed += 1
        finally:
            file.write_bytes(good)
    assert noticed >= len(places) // 2


def test_damaged_or_missing_zarr_chunk_is_named(tmp_path):
    truth = fill(make_template(members=2, years=2)).drop_vars("ta")
    with EnsembleWriter(tmp_path / "E.zarr", truth, chunks={"realization": 1, "scenario": 2, "time": 2}) as writer:
        writer.write(slice(0, 2), None, truth)
    chunk = tmp_path / "E.zarr" / "tas" / "c" / "1" / "0" / "0" / "0" / "0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    with open_ensemble(tmp_path / "E.zarr") as back:
        np.testing.assert_array_equal(back.tas[0].values, truth.tas[0].values)
        with pytest.raises(DataError, match=r"chunk tas/c/1/0/0/0/0 of .*E.zarr is damaged"):
            back.tas.load()
    chunk.unlink()
    with open_ensemble(tmp_path / "E.zarr") as back, pytest.raises(DataError, match=r"tas/c/1/0/0/0/0 .* is missing"):
        back.tas.load()


def test_every_zarr_array_has_zstd_and_crc32c_and_no_chunk_is_left_out(tmp_path):
    truth = make_template(members=2).map(lambda da: da * np.float32(np.nan), keep_attrs=True)
    with EnsembleWriter(tmp_path / "E.zarr", truth) as writer:
        writer.write(slice(0, 2), None, truth)
    for file in (tmp_path / "E.zarr").rglob("zarr.json"):
        meta = json.loads(file.read_text())
        assert meta["zarr_format"] == 3
        if meta["node_type"] == "array":
            assert [c["name"] for c in meta["codecs"]][-2:] == ["zstd", "crc32c"], file
            grid = meta["chunk_grid"]["configuration"]["chunk_shape"]
            n = int(np.prod([-(-s // c) for s, c in zip(meta["shape"], grid)]))
            chunks = [p for p in file.parent.rglob("*") if p.is_file() and p != file]
            assert len(chunks) == n, file


def test_a_finished_zarr_is_opened_plainly_and_quietly_in_the_order_of_the_model(tmp_path):
    """With warnings as errors, for writer and reader: order and labels come from metadata in one place."""
    truth = fill(make_template()).rename(tas="zz", ta="aa").assign(mm=lambda ds: ds.zz)
    order = ["zz", "aa", "mm"]
    assert list(truth.data_vars) == order
    truth.to_netcdf(tmp_path / "truth.nc")
    code = """
import sys
import xarray as xr
from undrift.data.write import EnsembleWriter, open_ensemble

truth = xr.load_dataset("truth.nc", decode_times=xr.coders.CFDatetimeCoder(use_cftime=True))
with EnsembleWriter("E.zarr", truth) as writer:
    writer.write(slice(0, 3), None, truth)
for back in (xr.open_zarr("E.zarr"), xr.open_zarr("E.zarr", consolidated=True), open_ensemble("E.zarr")):
    assert list(back.data_vars) == sys.argv[1:] and back.attrs["complete"] == "true", back
    assert all(back[name].variable.identical(truth[name].variable) for name in truth.variables), back
"""
    command = [sys.executable, "-W", "error", "-c", code, *order]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_netcdf_field_has_fletcher32_and_zlib(tmp_path):
    truth = fill(make_template())
    with EnsembleWriter(tmp_path / "E.nc", truth) as writer:
        writer.write(slice(0, 3), None, truth)
    with netCDF4.Dataset(tmp_path / "E.nc") as file:
        for name in ("tas", "ta", "lat", "lon", "y", "time"):
            assert file[name].filters()["fletcher32"] and file[name].filters()["zlib"], name


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_a_thousand_realizations_need_the_memory_of_ten(tmp_path, name):
    import dask.array

    def peak(members):
        zeros = dask.array.zeros((members, 2, 64, 64), dtype="f4", chunks=(1, 2, 64, 64))
        template = xr.Dataset({"a": (("realization", "time", "y", "x"), zeros)})
        block = np.ones((10, 2, 64, 64), "f4")
        tracemalloc.start()
        with EnsembleWriter(tmp_path / f"{members}{name}", template) as writer:
            for i in range(0, members, 10):
                writer.write(slice(i, i + 10), None, {"a": block})
            held = tracemalloc.get_traced_memory()[0]
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held, top

    peak(50)
    (held_few, top_few), (held, top) = peak(100), peak(1000)
    assert held < held_few + 1e6  # the whole is 33 MB
    assert top < top_few + 8e6  # some chunks of 1 MB are in flight at a time


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_files_get_the_modes_of_the_umask(tmp_path, name):
    truth = fill(make_template()).drop_vars("ta")
    old = os.umask(0o027)
    try:
        with EnsembleWriter(tmp_path / name, truth) as writer:
            writer.write(slice(0, 3), None, truth)
    finally:
        os.umask(old)
    files = [tmp_path / name, *(tmp_path / name).rglob("*")] if name.endswith("zarr") else [tmp_path / name]
    for file in files:
        assert file.stat().st_mode & 0o777 == (0o750 if file.is_dir() else 0o640), file


def test_full_disk_names_path_and_bytes(tmp_path, monkeypatch):
    truth = fill(make_template()).drop_vars("ta")
    writer = EnsembleWriter(tmp_path / "E.zarr", truth)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._store, "write", full)
    with pytest.raises(UndriftError, match=rf"E\.zarr: up to {truth.tas.size * 4:,} bytes are needed"), writer:
        writer.write(slice(0, 3), None, truth)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["E.nc", "E.zarr"])
def test_really_full_disk(tmp_path, name):
    """A file system of 1 MB, where the machine lets us mount one."""
    code = f"""
import numpy as np, xarray as xr
from undrift.data.write import EnsembleWriter
from undrift.errors import UndriftError
rng = np.random.default_rng(0)
t = xr.Dataset({{"a": (("realization", "time", "x"), np.zeros((40, 2, 20000), "f4"))}})
try:
    with EnsembleWriter({str(tmp_path / name)!r}, t) as w:
        for i in range(40):
            w.write(i, None, {{"a": rng.normal(size=(1, 2, 20000)).astype("f4")}})
except UndriftError as error:
    print(type(error).__name__, error)
import os; print(os.listdir({str(tmp_path)!r}))
"""
    script = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c {shlex.quote(code)}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no right to mount")
    assert "UndriftError no space left on disk while writing" in done.stdout, done.stdout + done.stderr
    assert "6,400,000 bytes are needed" in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("dim", ["number", "member", "ensemble", "sample"])
def test_other_names_of_the_members(tmp_path, dim):
    xr.Dataset({"a": ((dim, "x"), np.arange(6.0).reshape(2, 3))}).to_netcdf(tmp_path / "e.nc")
    with open_ensemble(tmp_path / "e.nc") as back:
        assert back.a.dims == ("realization", "x")


def test_unreadable_files_are_data_errors(tmp_path):
    (tmp_path / "text.nc").write_text("not a NetCDF file at all")
    (tmp_path / "empty.nc").write_bytes(b"")
    good = fill(make_template()).drop_vars("ta")
    with EnsembleWriter(tmp_path / "good.nc", good) as writer:
        writer.write(slice(0, 3), None, good)
    raw = (tmp_path / "good.nc").read_bytes()
    (tmp_path / "short.nc").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    for name in ("text.nc", "empty.nc", "short.nc", "broken.zarr", "absent.nc"):
        with pytest.raises(DataError, match=name):
            open_ensemble(tmp_path / name)
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "none.nc")
    with pytest.raises(DataError, match="realization, number"):
        open_ensemble(tmp_path / "none.nc")


def test_bad_blocks_and_names(tmp_path):
    truth = fill(make_template()).drop_vars("ta")
    with pytest.raises(UsageError, match=r"ends in \.nc or \.zarr"):
        EnsembleWriter(tmp_path / "E.grib", truth)
    writer = EnsembleWriter(tmp_path / "E.nc", truth)
    with pytest.raises(DataError, match="shape"):
        writer.write(0, None, {"tas": np.zeros((2, 2, 4, 5, 6))})
    with pytest.raises(DataError, match="not in the template"):
        writer.write(0, None, {"pr": np.zeros(1)})
    with pytest.raises(UsageError, match="outside"):
        writer.write(slice(2, 9), None, {"tas": np.zeros((7, 2, 4, 5, 6))})
    writer.abort()
    assert list(Path(tmp_path).iterdir()) == []


def test_the_log_of_blocks_goes_on_after_a_line_that_was_cut_short(tmp_path):
    """Begun twice without a block, then killed in the middle of a line."""
    path, region = tmp_path / "log", (slice(0, 1), slice(2, 4))
    for _ in range(2):
        log = BlockLog(path, "what is written")
        assert log.open() == []
        log.close(remove=False)
    log = BlockLog(path, "what is written")
    log.open()
    log.add("tas", region)
    log.close(remove=False)
    with path.open("a") as file:
        file.write('["tas", [1, 2], [0')
    assert BlockLog(path, "what is written").begun() and not BlockLog(path, "something else").begun()
    log = BlockLog(path, "what is written")
    assert log.open() == [("tas", region)]
    log.add("pr", region)
    log.close(remove=False)
    assert BlockLog(path, "what is written").open() == [("tas", region), ("pr", region)]
