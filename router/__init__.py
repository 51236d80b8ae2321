"""Routes video-model calls over many accounts and vendors.

    from router import Router

    router = Router.from_yaml("deployments.yaml")
    video = router.video_generation(model="sora-2", prompt="A heron lands on a still lake")
    video = router.video_wait(video.id)
    router.video_content(video.id, to="heron.mp4")

Picks a deployment for each call, sends it, follows the job; never pays twice, never asks the wrong
account.
"""

from router import _begun, errors, events  # noqa: F401  (from here on Ctrl-C is heard)
from router.config import Deployment
from router.errors import *  # noqa: F403  (the tree's names are the package's)
from router.ids import Copy
from router.inspection import (
    AccountView,
    DeploymentView,
    Explained,
    Explanation,
    Hold,
    IdDescription,
    JobView,
    Out,
    Overview,
    Probe,
    Room,
)
from router.leases import Job
from router.observations import Change
from router.picking import Attempt, Picking
from router.router import Router
from router.sdk import *  # noqa: F403  (the operations as functions)
from router.tenants import Tenant
from router.types import (
    AttemptRecord,
    Character,
    Content,
    Operation,
    Routing,
    Video,
    VideoDeleted,
    VideoPage,
)

__version__ = "0.1.0"

__all__ = [
    "AccountView",
    "Attempt",
    "AttemptRecord",
    "Change",
    "Character",
    "Content",
    "Copy",
    "Deployment",
    "DeploymentView",
    "Explained",
    "Explanation",
    "Hold",
    "IdDescription",
    "Job",
    "JobView",
    "Operation",
    "Out",
    "Overview",
    "Picking",
    "Probe",
    "Room",
    "Router",
    "Routing",
    "Tenant",
    "Video",
    "VideoDeleted",
    "VideoPage",
    "errors",
    "events",
]
__all__ += errors.__all__
__all__ += sdk.__all__  # type: ignore[name-defined]  # noqa: F405  (bound by the star import above)
