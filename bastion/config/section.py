"""What every section of the configuration is made of: frozen, strict, and typed values that say what would be right."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError("a name of letters, digits, '_', '.' and '-' is right")
    return value


def _readable(value: Path, info: ValidationInfo) -> Path:
    """A file that has to be there; looked at by the loader only, which knows the folder."""
    if info.context is None:
        return value
    path: Path = info.context["folder"] / value
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"a file that can be read is right ({path}: {error.strerror})") from None


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"each only once is right; {value!r} is there twice")
    return values


Name = Annotated[str, AfterValidator(_name)]
InputFile = Annotated[Path, AfterValidator(_readable)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_a_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes `true` for 1
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("true and false do not fit here; put quotes around it if it is meant as text")
        return value

    def resolved(self, folder: Path) -> Self:
        """A copy whose relative paths, also those that are defaults, start at `folder`."""
        return self.model_copy(
            update={name: _resolved(getattr(self, name), folder) for name in type(self).model_fields}
        )


def _resolved(value: object, folder: Path) -> object:
    if isinstance(value, Section):
        return value.resolved(folder)
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, tuple):
        return tuple(_resolved(item, folder) for item in value)
    return value
