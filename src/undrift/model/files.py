"""The files of a run, apart from what only a resume needs: a trained model on disk and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from undrift.config import Config, dump_config, load_config
from undrift.data.codec import Codec
from undrift.data.codec_file import Shell, load_codec, save_codec
from undrift.data.netcdf import open_dataset, write_dataset
from undrift.denoise.guess import GaussianGuess, Guess
from undrift.denoise.rings import RingGuess
from undrift.denoise.spectral import SpectralGuess
from undrift.denoise.windows import WindowGuess
from undrift.distributions.baselines import Dressed
from undrift.distributions.rivals import Rivals
from undrift.errors import CheckpointError, UsageError
from undrift.model.versions import made_with
from undrift.nets.members import Members, member_of, number_of
from undrift.train.device import precision_of
from undrift.train.manifest import read_manifest, verify_manifest
from undrift.train.network import KINDS, make_net
from undrift.train.run import refuse_no_run
from undrift.train.weights import load_state, load_tensors, save_tensors

__all__ = ["WEIGHTS", "Parts", "facts_of", "plain", "read_config", "read_files", "write_files"]

WEIGHTS = "model.safetensors"


@dataclass
class Parts:
    """All that a trained model consists of.

    Attributes:
        config: the resolved configuration.
        codec: from fields to the network's numbers and back.
        shell: labels of the target's fields.
        given_shell: labels of what is given, or None.
        net: the trained network.
        guess: of the preconditioning.
        rivals: the baselines.
        facts: how training went.
        versions: of the packages that it was made with, where it was read from disk.
    """

    config: Config
    codec: Codec
    shell: Shell
    given_shell: Shell | None
    net: nn.Module
    guess: Guess
    rivals: Rivals
    facts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """The same as JSON holds it; what JSON has no word for becomes text."""
    return json.loads(json.dumps(value, default=lambda v: v.item() if isinstance(v, np.generic) else str(v)))


def facts_of(parts: Parts) -> dict[str, Any]:
    """What the manifest tells of a model."""
    net, shape = member_of(parts.net, 0), {}
    if isinstance(net, KINDS[parts.config.net.kind]):
        members, kind = number_of(parts.net), parts.config.net.kind
        shape = {"kind": kind, "channels": list(net.channels), "in_channels": net.in_channels, "members": members}
    return {"facts": plain(parts.facts), "network": shape, "fingerprint": parts.facts.get("fingerprint")}


def write_files(parts: Parts, folder: Path) -> None:
    """Write all parts but the manifest into a directory."""
    dump_config(parts.config, folder / "config.toml")
    save_tensors(folder / WEIGHTS, parts.net.state_dict())
    save_tensors(folder / "guess.safetensors", parts.guess.state_dict())
    if parts.rivals.twin is not None:
        save_tensors(folder / "regression.safetensors", parts.rivals.twin.state_dict())
    save_codec(folder / "codec.nc", parts.codec, parts.shell, parts.given_shell)
    _write_dressed(parts.rivals.dressed, folder / "baselines.nc")


def read_files(path: Path, device: torch.device, *, verify: bool) -> Parts:
    """Read a run directory.

    Raises:
        CheckpointError: There is no complete run, or a file differs from what was written.
    """
    refuse_no_run(path)
    verify_manifest(path, verify=verify)
    manifest = read_manifest(path)
    extra = manifest.get("extra", manifest)
    config = read_config(path / "config.toml")
    codec, shell, given_shell = load_codec(path / "codec.nc")

    def net_of(name: str) -> nn.Module:
        shape: Mapping[str, Any] = extra["network"]
        number = shape.get("members", 1)
        nets = [make_net(codec, config, shape["in_channels"], shape["channels"]) for _ in range(number)]
        net = nets[0] if number == 1 else Members(nets)
        load_state(net, load_tensors(path / name), str(path / name))
        return net.to(device).eval()

    parts = load_tensors(path / "guess.safetensors")
    guess = _guess_of(parts).to(device)
    twin = net_of("regression.safetensors") if (path / "regression.safetensors").exists() else None
    precision = precision_of(config.train.precision, device)
    rivals = Rivals(codec, device, precision, twin, _read_dressed(path / "baselines.nc"))
    net, versions = net_of(WEIGHTS), made_with(manifest)
    return Parts(config, codec, shell, given_shell, net, guess, rivals, extra["facts"], versions)


def _guess_of(parts: Mapping[str, torch.Tensor]) -> Guess:
    if "powers" in parts:
        numbers = {name: parts[name] for name in ("powers", "edges", "share", "periodic")}
        return RingGuess(**numbers, gain=parts.get("gain"), tails=parts.get("tails"))
    if "asked" not in parts:
        return GaussianGuess(parts["modes"], parts["variances"], float(parts["floor"]))

    def waves(name: str) -> SpectralGuess:
        finish = (parts.get(f"{name}.{k}") for k in ("correlation", "gain", "offset", "cells"))
        return SpectralGuess(parts[f"{name}.power"], parts[f"{name}.periodic"], *finish)

    return WindowGuess(waves("usual"), waves("other"), parts["asked"], parts.get("never"))


def read_config(path: Path) -> Config:
    """The configuration of a run, which says all of it.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        config = load_config(path)
    except UsageError as error:
        raise CheckpointError(f"{error}; the run is damaged: restore the file") from None
    if not config.model_fields_set:
        raise CheckpointError(f"{path} is empty: the run is damaged, restore the file")
    return config


def _write_dressed(baselines: Mapping[str, Dressed], path: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, dressed in baselines.items():
        for key, value in {"members": dressed.members, **dressed.state}.items():
            label = f"{name}__{key}".replace(" ", "_")
            arrays[label] = ([f"{label}_{i}" for i in range(value.ndim)], value.astype(np.float32))
    notes = json.dumps({name: dressed.note for name, dressed in baselines.items()})
    encoding = {k: {"zlib": True, "complevel": 1} for k in arrays}
    write_dataset(xr.Dataset(arrays, attrs={"notes": notes}), path, encoding=encoding)


def _read_dressed(path: Path) -> dict[str, Dressed]:
    with open_dataset(path) as ds:
        ds = ds.load()
    out = {}
    for name, note in json.loads(ds.attrs["notes"]).items():
        prefix = name.replace(" ", "_") + "__"
        parts = {str(k).removeprefix(prefix): v.values for k, v in ds.data_vars.items() if str(k).startswith(prefix)}
        out[name] = Dressed(parts.pop("members"), parts, note)
    return out
