"""The scenarios of `python -m benchmarks.shared_state`, each a module.

Each offers `measure(binary, folder, quick=…)`, which plays it over a Redis of its own (`binary` is
the server, `folder` where it may write) and yields its figures as they are found.
"""
