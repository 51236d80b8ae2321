"""What routing costs: picks, calls, imports. `benchmarks.overhead` and others play them."""
