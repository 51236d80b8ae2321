"""How well the router chooses: a simulation of fleets on a virtual clock.

    python -m benchmarks.routing_quality                        all of it, under ten minutes
    python -m benchmarks.routing_quality --quick                the main lines, under one
    python -m benchmarks.routing_quality --only three-speeds    one scenario (or several)
    python -m benchmarks.routing_quality --only even --strategy lowest-latency --workers 8

From code, to look at one run more closely:

    from benchmarks.quality.play import Run, play
    result = play(Run("slow-middle", 0.6, "lowest-completion", workers=8, seed=1)).result
    result.attempts    # when, which call, which worker, where to, how answered
    result.outs        # which worker took whom out of rotation, until when and why
    result.done        # by call: when its video was there

    timeline      virtual time: the events, and the clock of the routers
    traffic       the calls, drawn from the seed beforehand: the same for every contender
    provider      hosts with slots, queues, speeds and faults
    scenarios     what there is and what happens to it; `TRIALS` ask one question each
    simulation    one run: it brings the others together and keeps the record
    contenders    what a caller does with any router; `Central`, the reference
    fleet         our contender: N real routers, the real sharing between them
    peer          LiteLLM's router, by its own code
    play          runs as values, played in as many processes as there are cores
    figures       what is read off a record
    judged        what was promised, and whether it is kept
    chart         the picture
"""
