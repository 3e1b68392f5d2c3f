"""What all settings have in common: frozen, validated, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class FrozenSettings(BaseModel):
    """Settings that cannot be changed, with names that are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
