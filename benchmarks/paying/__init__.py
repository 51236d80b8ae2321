"""How often a call is paid for: the same faults for this router and for LiteLLM's.

scenarios     what goes wrong, as values
tasks         what is asked for, and what became of it by the provider's books
contenders    who is asked: this router, with and without keys, and the peer
calls         one process: a stand-in and a router for each task
crashes       several: the same task for two workers, and a worker killed at work
chart         the picture
"""
