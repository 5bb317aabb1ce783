"""The numbers of a step by name: those that schedules move, and those that stay."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Numbers(Mapping[str, Any]):
    """A mapping in which a moved number hides the constant of the same name.

        >>> numbers = Numbers({"margin": 0.2, "knobs.scale": None}, {"margin": 0.3})
        >>> numbers["margin"]
        0.3

    Names are dotted paths. `constant` may hold more than numbers, such as all fields of a config.
    """

    constant: Mapping[str, Any]
    moved: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The values at this step, which are traced inside of a compiled step."""

    def __getitem__(self, name: str) -> Any:
        return self.moved[name] if name in self.moved else self.constant[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.constant, **self.moved})

    def __len__(self) -> int:
        return len(self.constant.keys() | self.moved.keys())

    def below(self, owner: str) -> dict[str, Any]:
        """The numbers whose names start with `owner.`, by the rest of the name, without None.

        >>> Numbers({"knobs.scale": None, "knobs.width": 2}).below("knobs")
        {'width': 2}
        """
        names = [name for name in self if name.startswith(f"{owner}.")]
        found = {name.removeprefix(f"{owner}."): self[name] for name in names}
        return {name: value for name, value in found.items() if value is not None}
