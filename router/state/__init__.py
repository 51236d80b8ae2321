"""What workers share, behind one narrow protocol.

A worker learns by itself and at once. In the background it exchanges: it hands in what it learned
and takes what the others did. `Sharing.step` is one such turn; who turns it (a thread, a
simulation, a test) is not its business. Adding a store is a file and a line here.
"""

from collections.abc import Callable

from router.state.memory import MemoryStore
from router.state.sharing import Sharing, Store

__all__ = ["STORES", "MemoryStore", "Sharing", "Store"]

STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
}
