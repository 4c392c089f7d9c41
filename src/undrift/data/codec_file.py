"""The codec on disk: one NetCDF file, arrays in the root and the two grids in groups."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.coarse_law import CoarseLaw
from undrift.data.codec import Codec
from undrift.data.covariates import Covariates
from undrift.data.fields import Fields
from undrift.data.given_codec import GivenCodec
from undrift.data.grid import Grid, Regridder
from undrift.data.layout import Layout
from undrift.data.netcdf import open_dataset, write_dataset
from undrift.data.order import Order
from undrift.data.predictors import Predictors
from undrift.data.transforms import Transform
from undrift.errors import CheckpointError

__all__ = ["Shell", "load_codec", "save_codec"]

_SPECIAL = "predictor__"
_COARSE = "coarse__"


class Shell:
    """What labels fields without their values: coordinates of space, attributes and order.

    Attributes:
        coords: canonical coordinates over the space dims, with attributes.
        order: the way back to the user's order.
        attrs: of the dataset; variable_attrs: of each variable.
    """

    def __init__(
        self, coords: xr.Dataset, order: Order, attrs: dict[str, Any], variable_attrs: dict[str, dict[str, Any]]
    ) -> None:
        self.coords, self.order, self.attrs, self.variable_attrs = coords, order, attrs, variable_attrs

    @classmethod
    def of(cls, fields: Fields) -> "Shell":
        """The shell of fields."""
        ds, layout = fields.dataset, fields.layout
        dims = {*layout.space, *(d for v in layout.level.values() for d in v)}
        coords = xr.Dataset(coords={n: c for n, c in ds.coords.items() if c.dims and set(c.dims) <= dims})
        for dim in layout.space:
            if dim not in coords.coords:
                coords = coords.assign({f"_{dim}": (dim, np.zeros(ds.sizes[dim], np.int8))})
        return cls(coords, fields.order, dict(ds.attrs), {v: dict(ds[v].attrs) for v in layout.variables})


def _plain(value: Any) -> Any:
    return (
        value.item()
        if isinstance(value, np.generic)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else str(value)
    )


def _arrays(codec: Codec) -> dict[str, np.ndarray]:
    """Arrays of a codec, and of that of the coarse windows which it is given."""
    out = codec.arrays() | {_SPECIAL + k: v for k, v in codec.predictor.to_arrays().items()}
    coarse = {} if codec.coarse_law is None else _arrays(codec.coarse_law.codec)
    return out | {_COARSE + k: v for k, v in coarse.items()}


def _facts(codec: Codec) -> dict[str, Any]:
    """What the arrays do not hold."""
    return {
        "layout": codec.layout.to_dict(),
        "given_layout": None if codec.given_layout is None else codec.given_layout.to_dict(),
        "transforms": [t.to_dict() for t in codec.transforms],
        "given_transforms": [] if codec.given is None else [t.to_dict() for t in codec.given.transforms],
        "covariates": codec.covariates.to_list(),
        "degree": codec.covariates.degree,
        "predictors": codec.predictor.to_list(),
        "coarse": None if codec.coarse_law is None else _facts(codec.coarse_law.codec),
    }


def save_codec(path: Path, codec: Codec, target: Shell, given: Shell | None) -> None:
    """Write the codec and the two shells."""
    arrays = _arrays(codec)
    data = {k: ([f"{k}_{i}" for i in range(v.ndim)], v) for k, v in arrays.items()}
    facts = {
        **_facts(codec),
        "order": target.order.to_dict(),
        "given_order": None if given is None else given.order.to_dict(),
        "attrs": target.attrs,
        "variable_attrs": target.variable_attrs,
    }
    encoding = {k: {"zlib": True, "complevel": 1} for k, v in arrays.items() if v.ndim and v.size > 1000}
    told = {"facts": json.dumps(facts, default=_plain)}
    write_dataset(xr.Dataset(data, attrs=told), path, encoding=encoding)
    write_dataset(target.coords, path, mode="a", group="target")
    if given is not None:
        write_dataset(given.coords, path, mode="a", group="given")


def _codec_of(arrays: dict[str, np.ndarray], facts: dict[str, Any], regridder: Regridder | None) -> Codec:
    """Inverse of :func:`_arrays` and :func:`_facts`."""
    layout = Layout.from_dict(facts["layout"])
    transforms = [Transform.from_dict(t) for t in facts["transforms"]]
    shape = (len(transforms), *layout.shape)
    special = {k.removeprefix(_SPECIAL): v for k, v in arrays.items() if k.startswith(_SPECIAL)}
    if "predictors" in facts:
        predictor = Predictors.from_arrays(special, facts["predictors"], shape)
    else:  # one for all channels, as there were before
        one = {"channels": range(len(transforms)), "inputs": None, "scores": facts["scores"]}
        predictor = Predictors.from_arrays({f"0_{k}": v for k, v in special.items()}, [one], shape)
    covariates = Covariates.from_list(facts["covariates"])
    covariates.degree = facts["degree"]
    given = None
    if regridder is not None:
        given_transforms = [Transform.from_dict(t) for t in facts["given_transforms"]]
        given = GivenCodec(Layout.from_dict(facts["given_layout"]), regridder, given_transforms, arrays)
    codec = Codec(
        layout=layout,
        transforms=transforms,
        given=given,
        covariates=covariates,
        predictor=predictor,
        arrays={k: v for k, v in arrays.items() if not k.startswith((_SPECIAL, _COARSE))},
    )
    if facts.get("coarse") is not None:
        own = {k.removeprefix(_COARSE): v for k, v in arrays.items() if k.startswith(_COARSE)}
        codec.coarse_law = CoarseLaw(_codec_of(own, facts["coarse"], None))
    return codec


def load_codec(path: Path) -> tuple[Codec, Shell, Shell | None]:
    """Read what :func:`save_codec` wrote."""
    try:
        with open_dataset(path) as root:
            facts = json.loads(root.attrs["facts"])
            arrays = {str(k): v.values for k, v in root.data_vars.items()}
        with open_dataset(path, group="target") as ds:
            coords = ds.load()
        given_coords = None
        if facts["given_layout"] is not None:
            with open_dataset(path, group="given") as ds:
                given_coords = ds.load()
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}); copy the run directory again") from None
    regridder = None
    if given_coords is not None:
        grids = (given_coords, facts["given_layout"]), (coords, facts["layout"])
        regridder = Regridder(*(Grid.of(ds, Layout.from_dict(told)) for ds, told in grids))
    codec = _codec_of(arrays, facts, regridder)
    shell = Shell(coords, Order.from_dict(facts["order"]), facts["attrs"], facts["variable_attrs"])
    given_shell = None if given_coords is None else Shell(given_coords, Order.from_dict(facts["given_order"]), {}, {})
    return codec, shell, given_shell
