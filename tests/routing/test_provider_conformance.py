"""What every provider in `PROVIDERS` keeps to, so that it can be one of several in a group."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from routing_parts import CLIP, PNG
from test_mixed_groups import EVERY, at

from router.config import Config, Deployment, load_data
from router.operations import Call
from router.providers import OPTIONAL, PROVIDERS, abilities, without
from router.router import VOCABULARY
from router.types import Operation

# A call that carries nothing but what it must, and by argument one that carries it, too.
BARE: dict[Operation, Call[Any]] = {
    Operation.CREATE_CHARACTER: Call(
        operation=Operation.CREATE_CHARACTER, name="Luna", upload=("luna.mp4", CLIP)
    ),
    Operation.GENERATION: Call(
        operation=Operation.GENERATION, prompt="a heron", upload_field="input_reference"
    ),
    Operation.EDIT: Call(operation=Operation.EDIT, prompt="dusk", ids=("v",)),
    Operation.EXTENSION: Call(operation=Operation.EXTENSION, prompt="on", ids=("v",), seconds="8"),
    Operation.REMIX: Call(operation=Operation.REMIX, prompt="again", ids=("v",)),
    Operation.GET_CHARACTER: Call(operation=Operation.GET_CHARACTER, ids=("c",)),
    Operation.STATUS: Call(operation=Operation.STATUS, ids=("v",)),
    Operation.CONTENT: Call(operation=Operation.CONTENT, ids=("v",)),
    Operation.LIST: Call(operation=Operation.LIST),
    Operation.DELETE: Call(operation=Operation.DELETE, ids=("v",)),
}
CARRIED: dict[str, dict[str, Any]] = {
    "seconds": {"seconds": "8"},
    "size": {"size": "1280x720"},
    "input_reference": {"upload": ("a.png", PNG)},
    "characters": {"ids": ("c",)},
    "video": {"ids": (), "upload": ("clip.mp4", CLIP)},
    "variant": {"variant": "thumbnail"},
    "after": {"after": "v"},
    "order": {"order": "asc"},
    "limit": {"limit": 5},
}
# Every listing names a limit; whoever has none answers with more.
ASKED = [
    (operation, argument)
    for operation, optional in OPTIONAL.items()
    for argument in sorted(optional - {"limit"})
]


def deployment(name: str) -> Deployment:
    config: Config = load_data({"deployments": [at(name)]}, environ={}, vocabulary=VOCABULARY)
    return config.deployments[0]


def carrying(operation: Operation, argument: str) -> Call[Any]:
    return dataclasses.replace(BARE[operation], **CARRIED[argument])


@pytest.mark.parametrize("name", EVERY)
def test_it_says_of_each_of_its_operations_what_that_takes(name: str) -> None:
    provider = PROVIDERS[name]
    assert provider.parameters.keys() == provider.operations
    for operation, taken in provider.parameters.items():
        assert taken <= OPTIONAL[operation]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("operation", "argument"), ASKED)
def test_what_it_takes_it_takes_and_what_it_takes_not_it_lacks_as_a_whole(
    name: str, operation: Operation, argument: str
) -> None:
    provider, one = PROVIDERS[name], deployment(name)
    call = carrying(operation, argument)
    assert call.is_particular
    lacks = provider.lacks(call, one)
    assert lacks == provider.lacks(call, one)
    if operation in provider.operations:
        wholly = {lack.parameter for lack in lacks if lack.whole}
        assert (argument in wholly) == (argument not in provider.parameters[operation])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("operation", Operation)
def test_it_lacks_nothing_of_a_call_that_carries_nothing(name: str, operation: Operation) -> None:
    provider = PROVIDERS[name]
    if operation in provider.operations - {Operation.EXTENSION}:
        assert provider.lacks(BARE[operation], deployment(name)) == ()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seconds", ["0.4", "2.5", "7", "8", "1000"])
@pytest.mark.parametrize("size", [None, "1280x720", "1x1", "16:9", "1080p", "wide"])
def test_its_advice_is_a_clause_that_names_it_and_what_is_dropped_is_lacked_no_more(
    name: str, seconds: str, size: str | None
) -> None:
    provider, one = PROVIDERS[name], deployment(name)
    for fields in ({}, {"upload": ("a.png", PNG)}, {"reference": {"file_id": "f"}}):
        call = dataclasses.replace(BARE[Operation.GENERATION], seconds=seconds, size=size, **fields)
        lacks = provider.lacks(call, one)
        for lack in lacks:
            assert lack.parameter in OPTIONAL[Operation.GENERATION]
            assert lack.advice
            assert not lack.advice.endswith(".")
            assert "\n" not in lack.advice
        droppable = [lack.parameter for lack in lacks if lack.can_be_dropped]
        left = provider.lacks(without(call, droppable), one)
        assert not {lack.parameter for lack in left} & set(droppable)


@pytest.mark.parametrize("name", EVERY)
def test_a_deployment_of_a_model_that_has_it_all_can_do_what_its_provider_can(name: str) -> None:
    provider = PROVIDERS[name]
    assert abilities(provider, deployment(name)) == dict(provider.parameters)


def test_a_deployment_can_do_no_more_than_its_model_and_its_configuration_have() -> None:
    other = dataclasses.replace(
        deployment("fal"),
        model="fal-ai/veo3.1",
        operations=PROVIDERS["fal"].operations - {Operation.DELETE},
    )
    assert abilities(PROVIDERS["fal"], other) == {
        Operation.GENERATION: frozenset(),
        Operation.STATUS: frozenset(),
        Operation.CONTENT: frozenset({"variant"}),
    }
