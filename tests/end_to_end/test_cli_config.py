"""Configuration: TOML with line numbers in errors, --set, durations, and the order in which they count."""

import inspect
import math
import shlex
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import undrift
from undrift.cli.main import main
from undrift.cli.options import resolve, settings, tell_reversed
from undrift.cli.train import command_line, train
from undrift.config import (
    ARGUMENTS,
    Config,
    apply_settings,
    config_text,
    dump_config,
    load_config,
    parse_config,
    parse_duration,
    parse_realizations,
)
from undrift.errors import UsageError


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[train]\nbatch = 8\nbatch = 9\n", 3, "given twice"),
        ("[train]\nbatch = 8\n[train]\nseed = 1\n", 3, "given twice"),
        ("[train]\nlearning_rate = nan\n", 2, "finite"),
        ("[train]\nlearning_rate = inf\n", 2, "finite"),
        ("# a remark\n\n[train]\n\nbatch = '8'\n", 5, "train.batch: got '8'"),
        ("[train]\nbatch = 8.5\n", 2, "train.batch"),
        ("[train]\nbatch = 0\n", 2, "greater than or equal to 1"),
        ("[train]\nbatcj = 8\n", 2, "did you mean 'batch'"),
        ("[trian]\nbatch = 8\n", 1, "did you mean 'train'"),
        ("batch = 8\n", 1, "did you mean 'train.batch'"),
        ("[train]\nnfe = 3\n", 2, "did you mean 'sample.nfe'"),
        ("[train]\nbudget = '3 fortnights'\n", 2, "type a duration"),
        ("[train]\ncrop = 'foo'\n", 2, "should be 'auto' or a valid integer"),
        ("[codec.transforms]\ntas = 'auto'\npr = 'cens'\n", 3, "codec.transforms.pr"),
        ("[task]\nname = 'downscael'\n", 2, "'downscale', 'emulate', 'enrich', 'window', 'lead-time' or 'density'"),
        ("[net]\nchannels = [32, 'a']\n", 2, "net.channels"),
        ("[data]\nholdout = 5\n", 2, "data.holdout"),
        ("[net\n", 1, "Expected"),
        ("[net]\n_target_ = 'os.system'\n", 2, "unknown key 'net._target_'"),
        ("[net]\nclass_path = 'os.system'\n", 2, "unknown key 'net.class_path'"),
        ("_target_ = 'os.system'\n", 1, "unknown section '_target_'"),
        ("net.blocks = 'x'\n", 1, "net.blocks"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, capsys, text, line, says):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(file)
    message = str(caught.value)
    assert says in message and str(file) in message and f"line {line}" in message
    assert "\n" not in message
    code = main(["train", "none.nc", "--config", str(file), "--out", str(tmp_path / "run")])
    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    assert says in output.err and output.err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 20_000 + "]" * 20_000,
        "[train]\nx = " + "{a=" * 3_000 + "1" + "}" * 3_000,
        ".".join("a" * 50_000) + " = 1",
        "[" + ".".join("a" * 50_000) + "]",
        "x = [\n" * 5_000 + "]\n" * 5_000,
        "#" * 1_000_001,
        "a = {b = {c = {d = {e = {f = {g = {h = {i = 1}}}}}}}}",
    ],
    ids=["arrays", "tables", "dotted", "header", "lines", "size", "a few too many"],
)
def test_a_text_made_to_exhaust_the_parser_is_refused_quickly(text):
    with pytest.raises(UsageError, match="nested deeper|larger than|line"):
        parse_config(text)


def test_a_file_that_is_no_text_or_absent(tmp_path):
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        load_config(tmp_path / "b.toml")
    with pytest.raises(UsageError, match="No such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="directory"):
        load_config(tmp_path)


KEYS = {"train": {"batch", "seed", "warmup"}, "net": {"blocks"}}
LINES = [
    *("[train]", "[net]", "[trian]", "", "# batch = 9", "batch = 8", "seed=3", "warmup = 0.25", "blocks = 2"),
    *("train.seed = 3", "net = {blocks = 2}", "batch", "batch = ", "batch = 8 8", "x = 1", '"batch" = 8', "batch = [8"),
]


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(LINES), max_size=6).map("\n".join)))
def test_any_text_is_the_configuration_that_toml_says_or_a_usage_error(text):
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        table = {"": None}
    sections = {name: KEYS.get(name, set()) for name in Config.model_fields}
    if all(
        isinstance(part, dict) and name in sections and part.keys() <= sections[name] for name, part in table.items()
    ):
        typed = {f"{name}.{key}": value for name, part in table.items() for key, value in part.items()}
        assert parse_config(text) == apply_settings(Config(), typed)
    else:
        with pytest.raises(UsageError):
            parse_config(text)


def test_a_configuration_survives_being_written(tmp_path):
    config = apply_settings(
        Config(),
        {
            "data.paths": ["a.nc", 'quo"te.nc'],
            "data.holdout": "20%",
            "codec.transforms.pr": "censored",
            "net.channels": "16,32",
            "train.budget": "1h30m",
            "train.learning_rate": "3e-4",
        },
    )
    dump_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config
    assert "steps" not in (tmp_path / "config.toml").read_text()
    assert parse_config("") == Config() == parse_config(config_text(Config()))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.batch", "8", 8),
        ("train.learning_rate", "1e-4", 1e-4),
        ("train.budget", "3m", 180.0),
        ("train.budget", "45", 45.0),
        ("train.budget", "none", None),
        ("train.crop", "auto", "auto"),
        ("train.crop", "48", 48),
        ("net.channels", "32,64", [32, 64]),
        ("net.channels", "[32, 64]", [32, 64]),
        ("data.variables", "tas, pr", ["tas", "pr"]),
        ("data.holdout", "2070", "2070"),
        ("data.select", "lat=35/60", "lat=35/60"),
    ],
)
def test_set_reads_text_by_the_type_of_the_key(key, text, value):
    section, name = key.split(".")
    before = Config()
    assert getattr(getattr(apply_settings(before, {key: text}), section), name) == value
    assert before == Config()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train.batch", "x", "train.batch: got 'x'"),
        ("train.batch", "8.5", "train.batch"),
        ("train.batch", 8.5, "train.batch"),
        ("train.baselines", 1, "boolean"),
        ("train.budget", "3x", r"^train.budget: got the duration '3x'; type a duration such as [^;]*$"),
        ("train.crop", "foo", r"got 'foo'; input should be 'auto' or .*integer"),
        ("train.crop", "0", r"got '0'; input should be 'auto' or greater than or equal to 1"),
        ("train.learning_rate", "nan", "finite"),
        ("train.learning_rate", math.inf, "finite"),
        ("train.bach", "3", "did you mean 'batch'"),
        ("trian.batch", "3", "did you mean 'train'"),
        ("batch", "3", "did you mean 'train.batch'"),
        ("train", "3", "is a section"),
        ("train.batch.x", "3", "no table"),
        ("train.device", "gpu", "train.device"),
        ("codec.transforms.pr", "cens", "'censored'"),
        ("net._target_", "os.system", "unknown key"),
        ("net.__class__", "x", "unknown key"),
    ],
)
def test_set_refuses_with_the_key(key, value, says):
    with pytest.raises(UsageError, match=says):
        apply_settings(Config(), {key: value})


def test_set_wins_over_flags_and_flags_over_the_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[train]\nseed = 1\nbatch = 2\nwarmup = 0.25\n[task]\nname = 'emulate'\n")
    base = apply_settings(Config(), {"train.seed": 9, "net.blocks": 3})
    config = resolve(base, file, {"seed": 5, "factor": None}, ["train.batch=7"])
    assert (config.train.warmup, config.train.seed, config.train.batch, config.net.blocks) == (0.25, 5, 7, 3)
    assert (config.task.name, config.task.factor) == ("emulate", None)
    assert base.train.seed == 9


@pytest.mark.parametrize(
    "settings",
    [
        {
            "train.steps": 7,
            "train.batch": 8,
            "sample.nfe": 6,
            "codec.transforms.pr": "censored",
            "net.channels": [8, 16],
        },
        {"train.budget": 5400.0, "data.given": ["c 1.nc", "d.nc"], "train.baselines": True, "net.padding": "reflect"},
        {"train.steps": 3, "net.padding": ["zero", "reflect"]},
        {"task.name": "emulate", "data.covariates": ["year", "scenario"], "data.holdout": "year=2070/2099"},
        {"task.factor": 2, "data.periodic": ["y", "x"], "data.select": "lat=3/6", "train.seed": 3, "train.crop": 32},
    ],
)
def test_the_command_line_of_a_run_gives_its_configuration_again(settings, monkeypatch, capsys):
    config = apply_settings(Config(), {"data.paths": ["a.nc", "b c.nc"], **settings})
    words = shlex.split(command_line(config, "RUN"))
    seen = []
    monkeypatch.setattr("undrift.model.fit_config", lambda config, **rest: seen.append((config, rest)) or {})
    assert words[0] == "undrift" and main(words[1:]) == 0
    assert seen == [(config, {"out": "RUN", "resume": False, "overwrite": False, "dry_run": False})]


def test_every_setting_is_an_option_or_spelled_with_set():
    """One that is neither would be lost on the way from a run to the command that repeats it."""
    keys = {f"{s}.{k}" for s in Config.model_fields for k in type(getattr(Config(), s)).model_fields}
    assert set(ARGUMENTS.values()) <= keys
    options = set(inspect.signature(train).parameters)
    assert set(ARGUMENTS) <= options and set(ARGUMENTS) <= set(inspect.signature(undrift.fit).parameters)


@pytest.mark.parametrize(
    ("value", "first", "end"),
    [(20, 0, 20), ("20", 0, 20), ("100:200", 100, 200), (":5", 0, 5), (slice(2, 4), 2, 4), (slice(3), 0, 3),
     (np.int64(3), 0, 3)],
)  # fmt: skip
def test_realizations(value, first, end):
    assert parse_realizations(value) == slice(first, end)


@pytest.mark.parametrize(
    "value", [0, -1, "0", "9:3", "3:3", "many", "", ":", "3:", "-2:4", "1.5", 2.5, slice(2, None), slice(0, 8, 2)]
)
def test_what_is_no_realizations(value):
    with pytest.raises(UsageError, match=r"--realizations .*100:200"):
        parse_realizations(value)


def test_words_after_set():
    assert settings(["a.b=1", "c.d=x=y"]) == {"a.b": "1", "c.d": "x=y"}
    for wrong in (["a.b"], ["=3"], ["a.b=1", "a.b=2"]):
        with pytest.raises(UsageError, match="--set"):
            settings(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("3m", 180),
        ("2min", 120),
        ("2 minutes", 120),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m 15s", 5415),
        ("1.5h", 5400),
        ("1d", 86400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "3x", "3m x", "-3m", "0", "0s", "nan", "inf", "1e400", "3:20", True, None])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="type a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("year=2099/2070,scenario=E1", "--holdout year=2099/2070 is read as year=2070/2099"),
        ("time=2001-03-01/2001-02", "--holdout time=2001-03-01/2001-02 is read as time=2001-02/2001-03-01"),
        ("level=1000/50", "--holdout level=1000/50 is read as level=50/1000"),
        ("year=2070/2099", ""),
        ("year=2070/", ""),
        ("lon=350/10", ""),
        ("scenario=E1", ""),
        ("20%", ""),
        (None, ""),
    ],
)
def test_a_range_the_other_way_round_is_told(capsys, text, told):
    tell_reversed("--holdout", text)
    assert capsys.readouterr().err == (f"undrift: {told}\n" if told else "")
