"""The whole job by the command line on a small file: check, train, sample, evaluate, report, inspect."""

import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

import undrift
import undrift.cli.runs
from forked import begin, cli
from undrift.cli.main import main
from undrift.distributions.diffusion import Diffusion

SMALL = ["--set", "net.channels=8,16", "--set", "train.batch=8", "--set", "net.blocks=1"]
RUN_FILES = {"config.toml", "model.safetensors", "state.safetensors", "codec.nc", "metrics.jsonl", "manifest.json"}
HELD, HELD_DAYS = 12, "time=2001-02-18/2001-03-01"


def smooth(rng, count, shape, width):
    """Periodic Gaussian fields of unit variance whose spectrum ends at about `width` cells."""
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    fields = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, *shape))) * np.exp(-((k * width) ** 2))).real
    return fields / fields.std()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These networks are so small that several threads only wait for each other."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tas.nc: 60 days of large waves with small ones on top, north first, in K."""
    path = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(1)
    values = 280 + 6 * smooth(rng, 60, (16, 24), 8) + 1.5 * smooth(rng, 60, (16, 24), 3)
    coords = {
        "time": ("time", np.arange("2001-01-01", "2001-03-02", dtype="datetime64[D]").astype("datetime64[ns]")),
        "lat": ("lat", np.linspace(60.0, 45.0, 16), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(0.0, 23.0, 24), {"units": "degrees_east"}),
    }
    tas = xr.DataArray(values.astype("float32"), coords, ("time", "lat", "lon"), attrs={"units": "K", "long_name": "t"})
    tas.to_dataset(name="tas").to_netcdf(path / "tas.nc")
    tas.isel(time=slice(-HELD, None)).to_dataset(name="tas").to_netcdf(path / "last.nc")
    coarse = tas.coarsen(lat=4, lon=4).mean(keep_attrs=True)
    coarse.isel(time=slice(-HELD, None)).to_dataset(name="tas").to_netcdf(path / "coarse.nc")
    celsius = coarse.isel(time=slice(-HELD, None)) - 273.15
    celsius.assign_attrs(units="degC").to_dataset(name="tas").to_netcdf(path / "celsius.nc")
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def call(capsys, *words, code=0):
    """Run one command in this process and return what it printed."""
    got = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert got == code, err
    assert "Traceback" not in err
    return out, err


def spawn(*words, **options):
    command = [sys.executable, "-m", "undrift", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def train_words(out, steps=20, *more):
    return ["train", "tas.nc", "--steps", steps, "--holdout", HELD_DAYS, *SMALL, *more, "--out", out]


def digests(run):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in run.glob("*.safetensors")}


@pytest.fixture(scope="module")
def run(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main([str(word) for word in train_words("RUN", 20, "--baselines")]) == 0
        assert main(["sample", "RUN", "--holdout", "--realizations", "6", "--out", "ens.nc"]) == 0
    finally:
        os.chdir(before)
    return folder / "RUN"


def test_check_suggests_a_train_line_that_works(folder, capsys):
    out, _ = call(capsys, "check", "tas.nc")
    line = shlex.split(out.strip().splitlines()[-1])
    assert line[:2] == ["undrift", "train"]
    words = ["plan" if before == "--out" else word for before, word in itertools.pairwise(line)]
    plan = json.loads(call(capsys, *words, "--dry-run", "--json")[0])
    told = json.loads(call(capsys, "check", "tas.nc", "--json")[0])
    assert plan["samples"] == {
        "train": told["train"],
        "holdout": told["holdout"],
        "gap": 60 - told["train"] - told["holdout"],
    }
    assert told["holdout"] == 12 and plan["transforms"] == told["transforms"]
    assert (plan["task"], plan["given"], plan["target"]) == ("downscale", {"tas": [4, 6]}, {"tas": [16, 24]})
    assert not (folder / "plan").exists()


def test_a_run_is_a_directory_with_its_manifest_last(run):
    assert set(os.listdir(run)) >= RUN_FILES
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["files"]) >= RUN_FILES - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == entry["sha256"]
        assert (run / name).stat().st_mtime_ns <= (run / "manifest.json").stat().st_mtime_ns
    mask = os.umask(0)
    os.umask(mask)
    assert (run / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_ensemble_is_labelled_like_the_data(run, folder):
    with xr.open_dataset(folder / "ens.nc") as ens, xr.open_dataset(folder / "last.nc") as last:
        assert ens.tas.dims == ("realization", "time", "lat", "lon")
        assert ens.realization.attrs["standard_name"] == "realization"
        assert ens.tas.attrs["units"] == "K"
        for name in ("time", "lat", "lon"):
            np.testing.assert_array_equal(ens[name].values, last[name].values)
        assert ens.lat.values[0] > ens.lat.values[-1]
        # Large waves are given, so the mean must follow them; the small ones are not, so members must differ.
        error = (ens.tas.mean("realization") - last.tas).std()
        assert float(error) < 0.6 * float(last.tas.std())
        assert float(ens.tas.std("realization").mean()) > 0.2


def test_a_slice_of_realizations_is_bitwise_the_same(run, folder, capsys):
    call(capsys, "sample", "RUN", "--holdout", "--realizations", "2:4", "--out", "slice.nc")
    with xr.open_dataset(folder / "ens.nc") as whole, xr.open_dataset(folder / "slice.nc") as part:
        np.testing.assert_array_equal(part.realization.values, whole.realization.values[2:4])
        np.testing.assert_array_equal(part.tas.values, whole.tas.values[2:4])


def test_zarr_and_python_give_the_same_numbers(run, folder, capsys):
    call(capsys, "sample", "RUN", "--holdout", "--realizations", 3, "--out", "ens.zarr")
    drawn = undrift.load(run).sample(holdout=True, realizations=3, progress=False)
    with xr.open_dataset(folder / "ens.nc") as first, xr.open_zarr(folder / "ens.zarr", consolidated=False) as second:
        np.testing.assert_array_equal(first.tas.values[:3], second.tas.values)
        np.testing.assert_array_equal(first.tas.values[:3], drawn.tas.values)


def test_coarse_maps_from_a_file_are_as_good_as_the_held_out_ones(run, folder, capsys):
    call(capsys, "sample", "RUN", "--given", "coarse.nc", "--realizations", 2, "--out", "given.nc")
    with xr.open_dataset(folder / "ens.nc") as whole, xr.open_dataset(folder / "given.nc") as given:
        # means that were rounded to float32 in the file, through a network that may calculate in bf16
        spread = float(whole.tas.std("realization").mean())
        np.testing.assert_allclose(given.tas.values, whole.tas.values[:2], atol=0.02 * spread)


def test_what_is_given_in_other_units_is_refused_with_both(run, folder, capsys):
    _, err = call(capsys, "sample", "RUN", "--given", "celsius.nc", "--out", "no.nc", code=3)
    assert "'tas' was trained with units 'K' and is given in 'degC'" in err
    assert not (folder / "no.nc").exists()


def test_at_draws_only_what_is_asked(run, folder, capsys):
    call(capsys, "sample", "RUN", "--holdout", "--at", "time=2001-02-25", "--realizations", 2, "--out", "at.nc")
    with xr.open_dataset(folder / "ens.nc") as whole, xr.open_dataset(folder / "at.nc") as one:
        assert one.sizes["time"] == 1
        expected = whole.tas.sel(time=one.time.values[0]).isel(realization=slice(0, 2))
        np.testing.assert_allclose(one.tas.isel(time=0).values, expected.values, atol=1e-4)
    _, err = call(capsys, "sample", "RUN", "--holdout", "--at", "time=1999-01-01", "--out", "none.nc", code=3)
    assert "selects 0 of" in err


def test_scores_are_those_of_python_and_beat_climatology(run, folder, capsys):
    words = ["evaluate", "ens.nc", "--truth", "tas.nc", "--run", "RUN", "--bootstrap", 20]
    out, _ = call(capsys, *words, "--out", "scores.json", "--json")
    told = json.loads(out)
    stored = json.loads((folder / "scores.json").read_text())
    assert stored["table"] == told["scores"]
    values = {(row["score"], row["baseline"]): row["value"] for row in told["scores"]}
    with xr.open_dataset(folder / "ens.nc") as ens, xr.open_dataset(folder / "last.nc") as last:
        expected = undrift.evaluate(ens, last, bootstrap=0)
        member, truth = ens.tas.values.astype(float), last.tas.values.astype(float)
        weight = np.cos(np.deg2rad(last.lat.values))[:, None]
        pairs = np.abs(member[:, None] - member[None]).sum((0, 1)) / (2 * 6 * 5)
        crps = np.average((np.abs(member - truth).mean(0) - pairs).mean(0), weights=np.broadcast_to(weight, (16, 24)))
    assert values["crps", ""] == pytest.approx(float(expected["crps"].item()), rel=1e-6)
    assert values["crps", ""] == pytest.approx(crps, rel=2e-2)  # latitude weights may be of cell edges or of centres
    assert values["skill", "climatology"] > 0.2
    assert {row["level"] for row in told["verdict"]} <= {"good", "info", "warn", "bad"}
    out, _ = call(capsys, *words)
    assert "climatology" in out and "CRPS" in out
    _, err = call(capsys, *words, "--out", "scores.json", code=2)
    assert "--overwrite" in err


def test_only_a_training_says_that_there_is_no_gpu(run, capsys, monkeypatch):
    from undrift.train.device import _note_once

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _note_once.cache_clear()
    for words in (
        ["sample", "RUN", "--holdout", "--out", "cpu.nc", "--dry-run"],
        ["evaluate", "ens.nc", "--truth", "tas.nc", "--run", "RUN", "--dry-run"],
        ["report", "RUN", "--out", "cpu.html", "--dry-run"],
        ["inspect", "RUN"],
    ):
        assert "GPU" not in call(capsys, *words)[1]
    words = train_words("CPU", 2, "--dry-run")
    assert [call(capsys, *words)[1].count("no GPU was found: computing on the CPU") for _ in range(2)] == [1, 0]


def test_long_stages_are_shown(run, capsys, monkeypatch):
    from undrift import progress

    titles = []
    monkeypatch.setattr(progress._Tracker, "__init__", seen(progress._Tracker.__init__, titles))
    call(capsys, *train_words("STAGES", 2, "--baselines"))
    stages = ["preparing", "preparing batches", "training", "calibrating", "baseline", "dressing baselines"]
    assert titles == stages
    titles.clear()
    call(capsys, "evaluate", "ens.nc", "--truth", "tas.nc", "--run", "RUN", "--bootstrap", 0)
    assert titles == ["making baselines", "scoring"]


def seen(begin, titles):
    """A tracker's beginning that notes its title."""

    def noted(self, title, *rest):
        titles.append(title)
        begin(self, title, *rest)

    return noted


def test_a_report_of_the_run_alone(run, folder, capsys):
    out, _ = call(capsys, "report", "RUN", "--realizations", 4, "--out", "page.html", "--json")
    told = json.loads(out)
    page = (folder / "page.html").read_text()
    assert 50_000 < len(page.encode()) < 5_000_000
    for row in told["verdict"]:
        text = f"{row['level']}: {row['text']}"
        assert text.split(" (")[0].split(";")[0][:40] in page.replace("&lt;", "<").replace("&gt;", ">")
    assert "undrift train tas.nc" in page and "undrift report RUN --realizations 4 --out page.html" in page
    assert "<script" not in page and "http:" not in page.replace("http://www.w3.org", "")
    _, err = call(capsys, "report", "RUN", "--out", "page.html", code=2)
    assert "--overwrite" in err


def test_a_report_of_an_ensemble_that_was_drawn_before(run, folder, capsys, no_drawing):
    words = ["report", "RUN", "--ensemble", "ens.nc", "--truth", "last.nc", "--out", "page2.html", "--json"]
    told = json.loads(call(capsys, *words)[0])
    again = json.loads(call(capsys, "evaluate", "ens.nc", "--truth", "last.nc", "--run", "RUN", "--json")[0])
    assert told["scores"] == again["scores"]
    typed = "undrift report RUN --ensemble ens.nc --truth last.nc --out page2.html"
    assert typed in (folder / "page2.html").read_text()


def test_inspect_tells_what_the_run_is(run, capsys):
    told = json.loads(call(capsys, "inspect", "RUN", "--json")[0])
    assert (told["task"], told["variables"], told["grid"]) == ("downscale", {"tas": "K"}, {"lat": 16, "lon": 24})
    assert (told["training"]["steps"], told["training"]["images"]) == (20, 20 * 8)
    assert told["training"]["samples"]["holdout"] == HELD and told["network"]["channels"] == [8, 16]
    weights = load_file(run / "model.safetensors")
    assert told["network"]["parameters of each"] == sum(tensor.numel() for tensor in weights.values())
    words = call(capsys, "inspect", "RUN")[0]
    assert "downscale" in words and f"{told['fingerprint']}" in words


def test_a_fork_begins_with_the_network_and_the_options_of_a_run(run, folder, capsys):
    """Row 18: other options end a resume with 2, and the line that it names begins another lineage."""
    err = call(capsys, "train", "--resume", "--steps", 30, "--set", "train.batch=4", "--out", "RUN", code=2)[1]
    assert "train.batch: was 8, now 4" in err and f"--fork {run} --out ANOTHER" in err
    before = digests(run)
    still = ["--set", "train.learning_rate=1e-12", "--set", "train.weight_decay=0"]
    words = ["train", "--fork", "RUN", "--steps", "2", "--set", "train.batch=4", *still, "--out", "FORKED"]
    call(capsys, *words)
    mine, theirs = (load_file(folder / name / "model.safetensors") for name in ("FORKED", "RUN"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, atol=1e-8, rtol=1e-6)
    config = undrift.load(folder / "FORKED").config
    assert (config.train.fork, config.train.batch, config.train.steps) == ("RUN", 4, 2)
    assert config.data.holdout == HELD_DAYS and config.net.channels == [8, 16]
    assert digests(run) == before
    other = call(capsys, *words[:-1], "OTHER", "--set", "net.channels=4,8", code=2)[1]
    assert "--fork RUN: its network has net.channels=8,16, and here net.channels=4,8 is asked for" in other
    assert "type --set net.channels=8,16, or leave --fork out" in other
    call(capsys, "train", "--fork", "FORKED", "--steps", "2", "--out", "SECOND")
    shutil.rmtree(folder / "FORKED")
    call(capsys, "train", "--resume", "--steps", "3", "--out", "SECOND")  # it has a state of its own
    assert "no is no run directory" in call(capsys, "train", "--fork", "no", "--out", "OTHER", code=4)[1]


def test_a_fork_on_data_of_other_channels_says_what_its_network_was_made_for(run, folder, capsys):
    with xr.open_dataset("tas.nc") as tas:
        tas.assign(pr=tas.tas.assign_attrs(units="mm"), hurs=tas.tas * 0.1).to_netcdf("three.nc")
        tas.assign(orog=tas.tas[0].drop_vars("time")).to_netcdf("orog.nc")
    words = ["train", "--fork", "RUN", "--steps", "2", "--out", "UNLIKE"]
    here = "--fork RUN: its network was made for tas on lat x lon given tas at factor 4 (7 channels in, 1 out)"
    new = "or leave --fork out to begin with a new network"
    for more, told in [
        (["three.nc"], "tas, pr, hurs on lat x lon given tas, pr, hurs at factor 4 (17 channels in, 3 out); "
                       "type --variables tas"),
        (["orog.nc", "--static", "orog"], "given tas at factor 4 and static orog (8 channels in, 1 out); give it data"),
        (["--task", "emulate", "--covariates", "time"], "(6 channels and 1 number in, 1 out); give it data and a task"),
    ]:  # fmt: skip
        last = call(capsys, *words, *more, code=2)[1].splitlines()[-1]
        assert here in last and told in last and new in last
        assert not (folder / "UNLIKE").exists()
    call(capsys, *words, "three.nc", "--variables", "tas")  # as the sentence says
    weights = folder / "TORN" / "model.safetensors"
    shutil.copytree(run, weights.parent)
    weights.write_bytes(weights.read_bytes()[:-8])
    err = call(capsys, "train", "--fork", "TORN", "--steps", "2", "--out", "NONE", code=4)[1]
    assert "checksum of model.safetensors differs" in err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "tas.nc", "--steps", "50", *SMALL, "--out", "planned"],
        ["sample", "RUN", "--holdout", "--realizations", "1000", "--out", "planned.nc"],
        ["sample", "RUN", "--holdout", "--realizations", "1000", "--out", "ens.nc"],  # is there and stays
        ["check", "tas.nc", "--given", "coarse.nc"],
        ["evaluate", "ens.nc", "--truth", "tas.nc", "--run", "RUN", "--out", "planned.json"],
        ["report", "RUN", "--out", "planned.html"],
        ["report", "RUN", "--ensemble", "ens.nc", "--truth", "tas.nc", "--out", "planned.html"],
        ["demo", "--out", "planned"],
    ],
    ids=lambda words: words[0],
)
def test_a_dry_run_writes_nothing(run, folder, capsys, words):
    before = sorted(folder.rglob("*"))
    told = json.loads(call(capsys, *words, "--dry-run", "--json")[0])
    for part in (
        ("data", "given") if words[0] == "check" else ("downscale", "emulate") if words[0] == "demo" else [None]
    ):
        plan = told if part is None else told[part]
        assert ("time" in plan or plan["seconds"] > 0) and plan["memory_mb"] > 0
    assert call(capsys, *words, "--dry-run")[0]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["check", "tas.nc", "--dry-run", "--holdout", "time=2001-03-01/2001-02-18"],
        ["train", "tas.nc", "--dry-run", "--steps", "2", "--out", "no", "--holdout", "time=2001-03-01/2001-02-18"],
        ["sample", "RUN", "--holdout", "--dry-run", "--out", "no.nc", "--at", "time=2001-03-01/2001-02-18"],
    ],
    ids=lambda words: words[0],
)
def test_a_range_the_other_way_round_is_told_by_each_verb(run, capsys, words):
    assert "time=2001-03-01/2001-02-18 is read as time=2001-02-18/2001-03-01" in call(capsys, *words)[1]


def test_a_dry_check_reads_a_few_samples_only_and_tells_the_time(folder, capsys, monkeypatch):
    from undrift.data.fields import Fields, _Store

    def refused(*args, **options):
        raise AssertionError("values were kept")

    read, counts = _Store.read_files, []

    def slowly(store, indices, window):
        counts.append(len(indices))
        time.sleep(0.01 * len(indices))
        return read(store, indices, window)

    monkeypatch.setattr(Fields, "read", refused)
    monkeypatch.setattr(_Store, "read_files", slowly)
    monkeypatch.setattr("undrift.data.scan._BLOCK_BYTES", 5 * 4 * 16 * 24)
    told = json.loads(call(capsys, "check", "tas.nc", "--given", "coarse.nc", "--dry-run", "--json")[0])
    assert max(counts) < 60
    assert told["data"]["channels"] == {"tas": {"lat": 16, "lon": 24}} and told["data"]["samples"] == 60
    assert told["data"]["bytes_to_read"] == 4 * 60 * 16 * 24 and told["given"]["samples"] == HELD
    assert os.path.basename(told["data"]["files"][0]) == "tas.nc" and told["data"]["memory_mb"] < 1000
    words = told["data"]["time"].split()
    assert words[0] == "about" and 0.6 <= float(words[1]) < 6 and words[2:] == ["s", "to", "read", "all", "values"]
    assert "values were kept" in call(capsys, "check", "tas.nc", code=1)[1]  # and without it, all of them are


def test_what_exists_is_kept_without_overwrite(run, capsys):
    before = digests(run)
    for words in (train_words("RUN"), ["sample", "RUN", "--holdout", "--out", "ens.nc"]):
        _, err = call(capsys, *words, code=2)
        assert "--overwrite" in err
    assert digests(run) == before


def test_one_flipped_bit_is_noticed(run, folder, capsys):
    broken = folder / "BROKEN"
    shutil.copytree(run, broken, dirs_exist_ok=True)
    content = bytearray((broken / "model.safetensors").read_bytes())
    content[-7] ^= 4
    (broken / "model.safetensors").write_bytes(content)
    _, err = call(capsys, "sample", "BROKEN", "--holdout", "--out", "no.nc", code=4)
    assert "checksum of model.safetensors differs" in err and "--no-verify" in err
    assert not (folder / "no.nc").exists()
    told = call(capsys, "inspect", "BROKEN", "--no-verify")[0]
    total = len(json.loads((broken / "manifest.json").read_text())["files"])
    assert f"1 of {total} differ from what was written: model.safetensors" in told
    assert f"intact: all {total} have" in call(capsys, "inspect", "RUN")[0]


@pytest.mark.parametrize("damage", ["flipped", "empty", "cut"])
def test_a_damaged_configuration_is_a_damaged_run(run, folder, capsys, damage):
    broken = folder / f"CONFIG-{damage}"
    shutil.copytree(run, broken, dirs_exist_ok=True)
    content = bytearray((broken / "config.toml").read_bytes())
    content[content.index(b"[data]") + 1] ^= 4  # its first key would be the user's mistake
    new = {"flipped": content, "empty": b"", "cut": content[:20]}[damage]
    (broken / "config.toml").write_bytes(new)
    for words in (["train", "--resume", "--out"], ["inspect"]):
        _, err = call(capsys, *words, broken.name, code=4)
        assert "checksum of config.toml differs" in err
    _, err = call(capsys, "inspect", broken.name, "--no-verify", code=4)
    assert "config.toml" in err and "restore the file" in err


def test_inspect_tells_the_versions_of_the_making(run, folder, capsys):
    told = json.loads(call(capsys, "inspect", "RUN", "--json")[0])
    manifest = json.loads((run / "manifest.json").read_text())
    assert told["versions"] == {"undrift": manifest["undrift"], **manifest["versions"]}
    assert "running versions that differ" not in told
    shutil.copytree(run, folder / "ELSEWHERE", dirs_exist_ok=True)
    now = manifest["versions"]["torch"]
    manifest["versions"] |= {"torch": "1.2.3", "abacus": "4"}
    (folder / "ELSEWHERE" / "manifest.json").write_text(json.dumps(manifest))
    told = json.loads(call(capsys, "inspect", "ELSEWHERE", "--json")[0])
    assert told["versions"]["torch"] == "1.2.3"
    assert told["running versions that differ"] == {"torch": now, "abacus": "absent"}


def test_what_is_no_run_is_not_to_be_resumed(run, folder, capsys):
    (folder / "PLAIN").mkdir()
    shutil.copy(folder / "tas.nc", folder / "PLAIN")
    shutil.copytree(run, folder / "RUNS" / "first", dirs_exist_ok=True)
    inner = folder / "RUNS" / "first" / "figures"
    inner.mkdir()
    why = "is no run directory: it has no manifest.json, and undrift train --out did not write it"
    for name, advice in [
        ("PLAIN", "type the name that was typed after --out"),
        ("RUNS", f"the runs in it are {os.path.join('RUNS', 'first')}: type one of them"),
        (str(inner), f"it is in the run {inner.parent}: type that"),
    ]:
        for words in (["inspect", name], ["report", name, "--out", "no.html"], ["sample", name, "--out", "no.nc"]):
            err = call(capsys, *words, code=4)[1]
            assert err == f"undrift: {name} {why}; {advice}\n"


@pytest.mark.parametrize("damage", [b"", b"text instead of weights\n", "half"])
def test_a_damaged_checkpoint_is_one_line(run, folder, capsys, damage):
    broken = folder / f"DAMAGED{len(damage)}"
    shutil.copytree(run, broken, dirs_exist_ok=True)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2] if damage == "half" else damage)
    for more in ([], ["--no-verify"]):
        _, err = call(capsys, "sample", broken.name, "--holdout", "--out", "no.nc", *more, code=4)
        assert err.strip().splitlines()[-1].startswith("undrift: ")


def test_resume_on_a_finished_run_says_so_and_goes_on_with_more_steps(run, folder, capsys):
    shutil.copytree(run, folder / "MORE", dirs_exist_ok=True)
    before = digests(folder / "MORE")
    out, err = call(capsys, "train", "--resume", "--out", "MORE")
    assert "RUN" not in out and "is finished (steps, step 20): nothing left to do" in out + err
    assert digests(folder / "MORE") == before
    call(capsys, *train_words("MORE", 24, "--baselines", "--resume"))
    assert digests(folder / "MORE")["model.safetensors"] != before["model.safetensors"]
    training = json.loads(call(capsys, "inspect", "MORE", "--json")[0])["training"]
    assert (training["steps"], training["images"], training["parts"]) == (24, 24 * 8, 2)


def test_resume_with_another_configuration_shows_the_difference(run, capsys):
    before = digests(run)
    _, err = call(
        capsys, *train_words("RUN", 20, "--baselines", "--resume", "--set", "train.learning_rate=0.5"), code=2
    )
    assert "config.train.learning_rate: was 0.002, now 0.5\n" in err
    assert digests(run) == before


def wait_for_checkpoint(alive, run):
    """Wait until a first whole checkpoint of a process is there, and a little longer."""
    end = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*/manifest.json")):
        assert alive() and time.monotonic() < end
        time.sleep(0.05)


def test_killed_and_resumed_is_bitwise_as_undisturbed(folder, capsys):
    words = [40, "--set", "train.save_steps=4"]
    call(capsys, *train_words("WHOLE", *words))
    process = begin(cli, train_words("KILLED", *words), folder, folder / "killed.said")
    wait_for_checkpoint(process.is_alive, folder / "KILLED")
    process.kill()
    process.join()
    assert not (folder / "KILLED" / "manifest.json").exists()
    _, err = call(capsys, "sample", "KILLED", "--holdout", "--out", "no.nc", code=4)
    assert "--resume" in err
    call(capsys, *train_words("KILLED", *words, "--resume"))
    for name in ("model.safetensors", "state.safetensors"):  # their headers hold the clock, their tensors must be equal
        whole, killed = (load_file(folder / run / name) for run in ("WHOLE", "KILLED"))
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[key], killed[key]) for key in whole), name


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_ends_with_75(folder, name):
    out, said = folder / name, folder / f"{name}.said"
    process = begin(cli, train_words(out.name, 100_000, "--set", "train.save_steps=5"), folder, said)
    wait_for_checkpoint(process.is_alive, out)
    os.kill(process.pid, signal.Signals[name])
    process.join(60)
    assert process.exitcode == 75, said.read_text()
    assert "resume" in said.read_text() and "Traceback" not in said.read_text()
    assert list(out.glob("checkpoints/step-*/manifest.json"))


def test_a_process_of_its_own_saves_and_ends_with_75(folder):
    """As a scheduler starts and stops it."""
    out = folder / "SIGTERM"
    process = spawn(*train_words(out.name, 100_000, "--set", "train.save_steps=5"), cwd=folder)
    wait_for_checkpoint(lambda: process.poll() is None, out)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "resume" in err and "Traceback" not in err
    assert list(out.glob("checkpoints/step-*/manifest.json"))


def stop_in(monkeypatch, name, number=signal.SIGUSR1):
    """Have this process receive a signal when a function, named by its path, is called."""

    def stopped(*args, **options):
        os.kill(os.getpid(), number)
        time.sleep(30)

    monkeypatch.setattr(name, stopped)


def test_a_stop_before_the_first_checkpoint_is_resumed_by_what_it_says(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in(patch, "undrift.model.training.prepare")
        _, err = call(capsys, *train_words("EARLY", 3), code=75)
    assert "stopped by SIGUSR1; type the same command with --resume" in err
    assert {".undrift", "config.toml"} <= set(os.listdir("EARLY")) and not os.path.exists("EARLY.lock")
    _, err = call(capsys, *train_words("EARLY", 3, "--resume"))
    assert "beginning anew" in err and (folder / "EARLY" / "manifest.json").exists()
    before = digests(folder / "EARLY")
    with monkeypatch.context() as patch:  # nothing of the old result was touched yet
        stop_in(patch, "undrift.model.training.open_data")
        _, err = call(capsys, *train_words("EARLY", 4, "--overwrite"), code=75)
    assert "EARLY is as it was; type the same command again" in err and digests(folder / "EARLY") == before
    with monkeypatch.context() as patch:  # the old result waits beside the new one
        stop_in(patch, "undrift.model.training.prepare")
        _, err = call(capsys, *train_words("EARLY", 4, "--overwrite"), code=75)
    assert "--resume in place of --overwrite" in err and digests(folder / "EARLY.replaced") == before
    call(capsys, *train_words("EARLY", 4, "--resume"))
    assert (folder / "EARLY" / "manifest.json").exists() and not os.path.exists("EARLY.replaced")


def test_a_stop_while_torch_is_imported_is_resumed_without_a_word_more(folder, capsys):
    code = (
        "import os, signal, sys\n"
        "class Torch:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'torch': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Torch)\n"
        "from undrift.cli.main import main\n"
        "raise SystemExit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", code, *map(str, train_words("IMPORT", 3))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (
        75,
        "undrift: stopped by SIGTERM; type the same command with --resume to go on\n",
    )
    call(capsys, "train", "--resume", "--out", "IMPORT")
    assert json.loads(call(capsys, "inspect", "IMPORT", "--json")[0])["training"]["steps"] == 3


@pytest.mark.parametrize("name", ["stop.nc", "stop.zarr"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_drawing_that_is_stopped_leaves_nothing(run, folder, capsys, monkeypatch, name, number, code):
    before = sorted(os.listdir(folder))
    draw, calls = Diffusion.sample, []

    def stopped(*args, **options):
        calls.append(os.listdir(folder))
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return draw(*args, **options)

    monkeypatch.setattr(Diffusion, "sample", stopped)
    _, err = call(capsys, "sample", "RUN", "--holdout", "--realizations", 6, "--out", name, code=code)
    assert any("partial" in file for file in calls[1]) and sorted(os.listdir(folder)) == before
    assert err.splitlines()[-1] == (
        "undrift: stopped" + (f" by {number.name}" if code == 75 else "")
        + f"; nothing was written to {name}; type the same command again"
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_report_that_is_stopped_leaves_no_temporary_folder(run, tmp_path, capsys, monkeypatch, number, code):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    score = undrift.cli.runs.score

    def stopped(*args, **options):
        assert os.listdir(tmp_path)
        os.kill(os.getpid(), number)
        return score(*args, **options)

    monkeypatch.setattr("undrift.cli.runs.score", stopped)
    _, err = call(capsys, "report", "RUN", "--realizations", 2, "--out", "stopped.html", code=code)
    assert not os.listdir(tmp_path) and not os.path.exists("stopped.html")
    assert err.splitlines()[-1].endswith("; nothing was written to stopped.html; type the same command again")


def test_an_evaluation_that_is_stopped_leaves_no_part_of_its_file(run, folder, capsys, monkeypatch):
    before = sorted(os.listdir(folder))

    def stopped(number):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("undrift.data.rows.os.fsync", stopped)
    _, err = call(capsys, "evaluate", "ens.nc", "--truth", "tas.nc", "--out", "stopped.json", code=75)
    assert sorted(os.listdir(folder)) == before
    assert err.splitlines()[-1].endswith("stopped by SIGTERM; nothing was written to stopped.json; "
                                         "type the same command again")  # fmt: skip


def test_an_emulator_draws_what_no_file_holds(folder, capsys):
    rng = np.random.default_rng(2)
    years = np.repeat(np.arange(1950, 1980), 1)
    fields = 280 + 0.1 * (years - 1950)[:, None, None] + smooth(rng, 30, (10, 13), 3)
    xr.Dataset(
        {"tas": (("year", "y", "x"), fields.astype("float32"), {"units": "K"})},
        {"year": years, "y": np.arange(10.0), "x": np.arange(13.0)},
    ).to_netcdf(folder / "annual.nc")
    words = ["train", "annual.nc", "--task", "emulate", "--covariates", "year", "--holdout", "year=1975/1979"]
    call(capsys, *words, "--steps", 20, *SMALL, "--out", "EMU")
    call(capsys, "sample", "EMU", "--at", "year=1977", "--realizations", 12, "--out", "emu.nc")
    with xr.open_dataset(folder / "emu.nc") as ens:
        assert dict(ens.sizes) == {"realization": 12, "year": 1, "y": 10, "x": 13}
        # The trend of 0.1 K a year must be carried on: 282.7 K, and not the mean of the training, 281.2 K.
        assert float(ens.tas.mean()) == pytest.approx(282.7, abs=0.6)
