"""For your own tests: a video provider that fails on demand and never sends a bill."""

from __future__ import annotations

from router.testing.faults import Fault
from router.testing.provider import SeenFile, SeenRequest
from router.testing.stand_in import StandIn
from router.testing.studio import AcceptedSubmit

__all__ = ["AcceptedSubmit", "Fault", "SeenFile", "SeenRequest", "StandIn"]
