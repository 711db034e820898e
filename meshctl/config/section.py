"""What every section of a mesh file is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the mesh file."""

    # Defaults are validated too, so that relative paths among them start at the mesh file like all others.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        revalidate_instances="always",
    )
