"""A training of milliseconds, and processes that do it and can be killed."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from forked import begin
from undrift.errors import UndriftError
from undrift.train.loop import train
from undrift.train.run import RunDirectory
from undrift.train.settings import Settings
from undrift.train.weights import save_tensors

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rows:
    """All that the loop asks of a batch: a length, and a way to a device."""

    x: torch.Tensor

    def __len__(self):
        return len(self.x)

    def to(self, device):
        return Rows(self.x.to(device))


def make_batch(step, seed=7, size=8):
    generator = torch.Generator("cpu").manual_seed(1000 * seed + step)
    x = torch.randn(size, 3, generator=generator, device=CPU)
    return Rows(x)


def make_net():
    """Dropout, so that the order of global random draws matters; a buffer and a norm, so that all kinds are saved."""
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 8, device=CPU),
        torch.nn.LayerNorm(8, device=CPU),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(8, 3, device=CPU),
    )
    generator = torch.Generator("cpu").manual_seed(5)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, device=CPU) * 0.5)
    net.register_buffer("scale", torch.ones(3, device=CPU))
    return net


def objective(batch, net, key):
    """Denoise: the noise is drawn from the key."""
    generator = torch.Generator("cpu").manual_seed(key)
    noise = torch.randn(batch.x.shape, generator=generator, device=CPU)
    loss = ((net(batch.x + noise) - batch.x) ** 2).mean(1)
    half = len(loss) // 2
    return loss, {"loss_by_noise": torch.stack([loss.detach()[:half].mean(), loss.detach()[half:].mean()])}


@dataclass
class Spec:
    """What a worker does: settings, and where it dies by its own hand (the n-th call that touches the disk)."""

    path: str
    steps: int | None = 30
    budget: float | None = None
    save_steps: int | None = 5
    patience: int | None = None
    resume: bool = False
    overwrite: bool = False
    publish: bool = True
    die_at: int | None = None
    pause: float = 0.0
    learning_rate: float = 3e-3
    count_to: str | None = None


def settings_of(spec):
    return Settings(
        steps=spec.steps, budget=spec.budget, save_steps=spec.save_steps, patience=spec.patience, learning_rate=spec.learning_rate,
        validate_every=0.1, seed=3,
    )  # fmt: skip


def _hook(spec):
    """Count the calls that change the disk; die just before the chosen one."""
    calls = 0

    def wrap(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == spec.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "link", "rmdir"):
        setattr(os, name, wrap(getattr(os, name)))
    return lambda: calls


def work(spec):
    """The whole job of a process; exits with the code of the command line."""
    torch.set_num_threads(1)
    with open(spec.path + ".said", "w") as said:
        os.dup2(said.fileno(), 2)
    count = _hook(spec)

    def batches(step):
        time.sleep(spec.pause)
        return make_batch(step)

    try:
        with RunDirectory(spec.path, resume=spec.resume, overwrite=spec.overwrite) as run:
            trained = train(
                make_net(), objective, batches, settings=settings_of(spec), validation=[make_batch(10**6), make_batch(10**6 + 1)],
                run=run, identity={"config": {"learning_rate": spec.learning_rate, "steps": spec.steps}, "data": "abc"},
            )  # fmt: skip
            if spec.publish and not (trained.was_finished and run.finished):
                with run.metrics.open("a") as log:
                    log.write(json.dumps({"kind": "summary", "step": trained.steps}) + "\n")
                with run.publish({"facts": trained.to_dict()}) as stage:
                    save_tensors(stage / "model.safetensors", trained.net.state_dict())
    except UndriftError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if spec.count_to:
        Path(spec.count_to).write_text(str(count()))


def start(spec):
    """Begin a worker process."""
    return begin(work, Spec(**asdict(spec)))


def finish(spec, code=0):
    """Run a worker to its end; returns what it said on stderr."""
    process = start(spec)
    process.join(120)
    text = Path(spec.path + ".said").read_text()
    assert process.exitcode == code, text
    return text
