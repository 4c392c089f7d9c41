"""The sections of a configuration: their keys, kinds and defaults."""

from __future__ import annotations

__all__ = ["Codec", "Config", "Data", "Density", "Net", "Sample", "Section", "Task", "Train"]

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from undrift.config.values import parse_duration
from undrift.errors import UsageError


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _text(value: Any) -> Any:
    """A number as the text that it is typed as."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


Names = Annotated[list[str], BeforeValidator(_split)]
Channels = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]
Padding = Literal["zero", "reflect"]
Transform = Literal["auto", "standard", "censored", "bounded", "power"]


class Section(BaseModel):
    """Keys and their values; what is not among them is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True, validate_default=True)


class Data(Section):
    """Which files are read and what is taken from them; None and empty lists mean "found out from the files"."""

    paths: Names = []
    """Files or globs; empty when the data came as an object."""
    given: Names = []
    """Files of what is given (downscaling from a real pair); empty: block means of the target."""
    variables: Names = []
    static: Names = []
    """Files, or names of variables without sample dims, that condition the model."""
    covariates: Names = []
    dims: Names = []
    """Names of the axes, in order, for data that does not name them (NumPy, HDF5)."""
    periodic: Names = []
    """Spatial dims that close on themselves; empty: a global longitude is found by itself; ``none``: no dim does."""
    select: str | None = None
    holdout: str | None = None
    """Samples kept out of training, such as ``year=2070/2099,scenario=E1`` or ``20%``; None means ``20%``."""


class Task(Section):
    """What is given and what is asked."""

    name: Literal["downscale", "emulate", "enrich", "window", "lead-time", "density"] = "downscale"
    factor: Annotated[int, Field(ge=1, le=64)] | None = None
    """Cells of the target per coarse cell, along each spatial dim; None is 4 for downscaling, and for windows that no
    coarse sequence is given."""
    past: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Frames up to the present that a window has, or that a state after a lead time is given; None: 4 of a window, 1
    before a lead."""
    future: int = Field(default=8, ge=0, le=1000)
    """Frames of a window after it."""
    members: int = Field(default=2, ge=1, le=1000)
    """Members of a date that one more is given, to enrich an ensemble."""
    longest: Annotated[str, BeforeValidator(_text)] | None = None
    """The longest lead time, such as ``24h``; a number where times are numbers."""


class Codec(Section):
    """How physical values become the network's numbers."""

    transforms: dict[str, Transform] = {}
    """Per variable; a variable that is absent is ``auto``."""
    folds: int = Field(default=5, ge=2, le=100)
    """Contiguous folds of the out-of-fold residuals."""
    linear: bool = True
    """Model the residual to a linear predictor of what is given."""
    motion: bool | None = None
    """Predict the frames after the past of a window by carrying its last one on along its motion; None: where training
    sees parts of the domain and that is better in blocked cross-validation."""


class Net(Section):
    """The network; what is empty or None is chosen from data size and budget."""

    kind: Literal["unet", "space-time", "dit"] = "unet"
    """A U-Net, to which frames are channels like others; one with convolutions in space and attention over frames; or a
    transformer on patches of space."""
    channels: Channels = []
    """Of each level of a U-Net, finest first; of a DiT one number."""
    blocks: Annotated[int, Field(ge=1, le=64)] | None = None
    """Residual blocks of a level of a U-Net on each way, or layers of a DiT; None is chosen from the kind."""
    patch: Annotated[int, Field(ge=1, le=64)] | None = None
    """Cells along each side of a patch of a DiT; None is chosen from the domain."""
    members: Annotated[int, Field(ge=1)] | None = None
    """Networks that share the training; realization n is drawn by the n-th in turn. None is chosen from data size and
    budget."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Probability with which a block drops a channel while training; None is chosen from data size and budget."""
    padding: Padding | Annotated[list[Padding], BeforeValidator(_split)] = "zero"
    """What the network sees beyond the ends of an axis that is not periodic: zeros, or the field mirrored; one for all
    axes, or one for each, as in ``zero,reflect``."""


class Train(Section):
    """How long and how the network is trained."""

    budget: Seconds | None = None
    """Wall clock of the training loop in seconds (text such as ``3m`` is read)."""
    steps: Annotated[int, Field(ge=1)] | None = None
    fork: str | None = None
    """Run with whose network the training begins; its own options, steps and budget count, and the regression of
    ``baselines`` begins anew. Kept as it was typed, as ``data.paths`` are."""
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=1.0, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training during which the learning rate rises."""
    ema: float = Field(default=0.05, ge=0, le=0.288)
    """Width of the weights' moving average, as a share of the training."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations (on blocks of the training part) without a new best after which training stops; None: never before
    the budget or the steps are used. The best weights by validation are the result in any case. The learning rate
    falls until the end of the budget and the loss with it, so that stopping early saves time and costs quality."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    crop: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Cells along each side of a training window."""
    wet: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the draws of windows that goes with the amount of what often is 0, such as rain, in them; the loss of
    each counts the less, so that its expectation stays. None: 0.5 of windows of frames with such variables, else 0."""
    save_every: Seconds = 60.0
    """Seconds between checkpoints."""
    save_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints, in place of seconds."""
    baselines: bool = False
    """Also train the same net as a regression, to be scored beside the model."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")


class Sample(Section):
    """How ensembles are drawn unless the command says otherwise."""

    nfe: int = Field(default=10, ge=1, le=10_000)
    """Network evaluations per realization."""
    micro_batch: int = Field(default=16, ge=1)
    """Fields per network call; results are bitwise the same for one value of it."""
    realizations: int = Field(default=20, ge=1)


class Density(Section):
    """How the density of a table of parameters is estimated."""

    estimator: Literal["auto", "flow-matching", "diffusion", "nsf", "kde", "mixture", "gp"] = "auto"
    """auto: a mixture of few samples; of more a mixture and a diffusion, stacked by left-out ones, or a mixture."""
    ignore_rows: float = Field(default=0.0, ge=0)
    """Share of each chain that is left out at its beginning, or number of rows if 1 or more."""
    dequantize: bool = False
    """Spread values that lie on even steps, as counts and packed data do, over their steps."""
    bounds: str | dict[str, list[float | str]] | None = None
    """File of ranges, or name -> low and high, "N" where open, and "periodic"; what is absent is open."""
    coupling: Literal["independent", "ot", "conditional-ot"] = "independent"
    """Of flow matching: how rows are paired with where the flow begins, by chance or by optimal transport."""
    base: str | None = None
    """Of flow matching: the table of another law, or the run of a density, whose rows take the place of noise."""


class Config(Section):
    """All sections of a run's ``config.toml``."""

    data: Data = Data()
    task: Task = Task()
    codec: Codec = Codec()
    net: Net = Net()
    density: Density = Density()
    train: Train = Train()
    sample: Sample = Sample()
