"""What workers share, behind one narrow protocol.

A worker learns by itself and at once. In the background it exchanges: it hands in what it learned
and takes what the others did. `Exchange.step` is one such turn; who turns it (a thread, a
simulation, a test) is not its business. Adding a store is a file and a line here.
"""

from collections.abc import Callable

from router.state.exchange import Exchange, Store
from router.state.memory import MemoryStore

__all__ = ["STORES", "Exchange", "MemoryStore", "Store"]

STORES: dict[str, Callable[[], Store]] = {
    "memory": MemoryStore,
}
