"""What is given, and a batch of what is learned from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from undrift.errors import check_kind, described

__all__ = ["Batch", "Condition", "check_finite", "check_rows"]


@dataclass(frozen=True)
class Condition:
    """What is given, by name, on the grid of what is asked.

    Attributes:
        fields: name -> (B, C, *space); what is missing is 0 and has a mask among the fields. One named "asked" is 1
            where x is asked and 0 where it is given, for tasks in which any part of x may be given.
        vectors: name -> (B, K).
    """

    fields: Mapping[str, Tensor] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind(Mapping, "Condition({'name': values}), with values (B, C, *space)", fields=self.fields)
        check_kind(Mapping, "Condition(vectors={'name': values}), with values (B, K)", vectors=self.vectors)
        for name, values in {**self.fields, **self.vectors}.items():
            if not isinstance(values, Tensor):
                raise TypeError(f"{name!r} is {described(values)}, expected a tensor; type torch.as_tensor(...)")

    def stacked(self) -> Tensor | None:
        """All fields as channels in the order of insertion, (B, C, *space), or None."""
        return torch.cat(list(self.fields.values()), 1) if self.fields else None

    def vector(self) -> Tensor | None:
        """All vectors side by side, (B, K), or None."""
        return torch.cat(list(self.vectors.values()), 1) if self.vectors else None

    def blanked(self, x: Tensor) -> Tensor:
        """Fields (B, C, *space) with 0 where they are given: what the network sees, and says, of these cells."""
        asked = self.fields.get("asked")
        return x if asked is None else x * asked.to(x.dtype)

    def index(self, rows: Tensor) -> Self:
        """The given rows, in that order, repeats allowed."""
        return type(self)({k: v[rows] for k, v in self.fields.items()}, {k: v[rows] for k, v in self.vectors.items()})

    def drop(self, rows: Tensor | None = None) -> Self:
        """Rows of which nothing is given: 0 in all fields, their masks among them, and in all vectors.

        Where 0 is also a value, as of a number but not of a one-hot label, put a vector of ones beside it, which then
        says whether it is given.

        Args:
            rows: which rows, bool, (B,); all if None.
        """

        def dropped(values: Tensor) -> Tensor:
            if rows is None:
                return torch.zeros_like(values)
            return values.masked_fill(rows.reshape(-1, *[1] * (values.ndim - 1)), 0)

        return type(self)(
            {k: dropped(v) for k, v in self.fields.items()}, {k: dropped(v) for k, v in self.vectors.items()}
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Condition"]) -> Self:
        """Rows of several conditions of the same names, one after the other."""
        fields = {k: torch.cat([p.fields[k] for p in parts]) for k in parts[0].fields}
        return cls(fields, {k: torch.cat([p.vectors[k] for p in parts]) for k in parts[0].vectors})

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return type(self)(
            {k: v.to(device) for k, v in self.fields.items()}, {k: v.to(device) for k, v in self.vectors.items()}
        )


@dataclass(frozen=True)
class Batch:
    """Training windows.

    Attributes:
        x: what is asked, encoded, (B, C, *space), 0 where missing.
        condition: what is given.
        weight: 1 where x is known, else 0; (B, C, *space).
        fold: the fold of the record that each window is from, (B,); what was fitted to the record leaves that fold out.
        member: which of several networks it is for, counted on and on, see :func:`undrift.nets.members.member_of`.
        importance: what each loss counts, (B,), where some windows are drawn more often than others; None: 1.
        z: the other end of each path, (B, C, *space), where it is matched before; None: the objective draws it.
    """

    x: Tensor
    condition: Condition
    weight: Tensor
    fold: Tensor
    member: int = 0
    importance: Tensor | None = None
    z: Tensor | None = None

    @classmethod
    def of(
        cls, x: Tensor, condition: Condition | None = None, weight: Tensor | None = None, z: Tensor | None = None
    ) -> Self:
        """A batch (B, ...) of one fold, all of whose cells are known unless a weight is given."""
        fold = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return cls(x, condition or Condition(), torch.ones_like(x) if weight is None else weight, fold, z=z)

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        importance = None if self.importance is None else self.importance.to(device)
        return type(self)(
            self.x.to(device), self.condition.to(device), self.weight.to(device), self.fold.to(device), self.member,
            importance, None if self.z is None else self.z.to(device),
        )  # fmt: skip


def check_rows(name: str, x: Tensor, condition: Condition | None) -> None:
    """Fields that somebody gives, and what is given with them, before anything is made of them.

    Args:
        name: of x.
        x: fields, (B, C, *space) or (B, D).
        condition: one row for each of x.

    Raises:
        ValueError: x is no tensor of real numbers with rows, or the condition has others.
        TypeError: the condition is none.
    """
    expected = "a tensor (B, ...) of real numbers, one row for each field"
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{name} is {described(x)}, expected {expected}; type torch.as_tensor(..., dtype=torch.float32)"
        )
    if x.ndim < 2 or not x.is_floating_point() or not x.numel():
        typed = f"; type {name}[:, None] for fields of one number" if x.ndim == 1 else ""
        raise ValueError(f"{name} is {tuple(x.shape)} of {x.dtype}, expected {expected}{typed}")
    if condition is None:
        return
    check_kind(Condition, "Condition(vectors={'name': values}), of undrift.tasks.batch", condition=condition)
    for given, values in {**condition.fields, **condition.vectors}.items():
        if len(values) != len(x):
            raise ValueError(f"{given!r} has {len(values)} rows, expected {len(x)}, one for each of {name}")


def check_finite(
    name: str, x: Tensor, condition: Condition | None, known: Tensor | None = None, instead: str = "finite numbers"
) -> None:
    """Fields and what is given with them have no NaN and no infinite number, but for x where it is not ``known``.

    Raises:
        ValueError: there is one; the sentence says where, and what was expected ``instead``.
    """
    given = condition or Condition()
    for of, values in {name: x, **given.fields, **given.vectors}.items():
        lost = ~torch.isfinite(values)
        if values is x and known is not None:
            lost &= known
        if bool(lost.any()):
            rows = lost.flatten(1).any(1).nonzero().flatten()
            raise ValueError(
                f"{of} is NaN or infinite in {len(rows)} of {len(values)} rows, first in row {int(rows[0])}; "
                f"expected {instead if values is x else 'finite numbers'}"
            )
