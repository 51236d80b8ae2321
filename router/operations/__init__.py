"""Calls as values: what a public method makes of its arguments before anything is decided."""

from router.operations.call import (
    MOST_COPIES,
    USUAL_LENGTH,
    Call,
    Demand,
    Options,
    SubmitOptions,
)
from router.operations.describe import (
    content,
    create_character,
    delete,
    edit,
    extension,
    generation,
    get_character,
    id_in,
    listing,
    remix,
    routing_only,
    status,
)
from router.operations.upload import Upload, opened

__all__ = [
    "MOST_COPIES",
    "USUAL_LENGTH",
    "Call",
    "Demand",
    "Options",
    "SubmitOptions",
    "Upload",
    "content",
    "create_character",
    "delete",
    "edit",
    "extension",
    "generation",
    "get_character",
    "id_in",
    "listing",
    "opened",
    "remix",
    "routing_only",
    "status",
]
