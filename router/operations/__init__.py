"""Calls as values: what a public method makes of its arguments before anything is decided."""

from router.operations.call import MOST_COPIES, Call, Options
from router.operations.describe import (
    DESCRIBE,
    content,
    create_character,
    delete,
    edit,
    extension,
    generation,
    get_character,
    listing,
    remix,
    routing_only,
    status,
)
from router.operations.upload import Upload, opened

__all__ = [
    "DESCRIBE",
    "MOST_COPIES",
    "Call",
    "Options",
    "Upload",
    "content",
    "create_character",
    "delete",
    "edit",
    "extension",
    "generation",
    "get_character",
    "listing",
    "opened",
    "remix",
    "routing_only",
    "status",
]
