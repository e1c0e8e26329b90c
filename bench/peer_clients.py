"""One boolean flag asked from memory: Haltline's check and the clients of flag systems, in one process.

Run by bench.peers in an environment of its own that holds those clients. Each is set up as its own documentation says
for an evaluation without a network, and asked whether something is killed that is not. They look up one flag;
``run.check()`` answers for four scopes and a capability. Prints one JSON object a client.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module, metadata
from typing import Any, Final

from bench.agent import agent
from bench.measure import Contender, compare, statement

KILLS: Final = 10_000
FLAG: Final = "kill-send-email"
CHECKS: Final = 1_000
EVALUATIONS: Final = 20


@contextmanager
def growthbook() -> Iterator[Contender]:
    """GrowthBook: a client object with its features passed in, as its "quick usage" shows."""
    module: Any = import_module("growthbook")
    client = module.GrowthBook(attributes={"id": "r-42", "tenant": "acme"}, features={FLAG: {"defaultValue": False}})
    assert client.is_on(FLAG) is False  # noqa: S101 - a client that answers anything else measures nothing
    yield statement(f'client.is_on("{FLAG}")', {"client": client})
    client.destroy()


@contextmanager
def launchdarkly() -> Iterator[Contender]:
    """LaunchDarkly: its test data source, which evaluates as a connected client does (offline=True would not)."""
    module: Any = import_module("ldclient")
    config: Any = import_module("ldclient.config")
    source = import_module("ldclient.integrations.test_data").TestData.data_source()
    source.update(source.flag(FLAG).boolean_flag().variation_for_all(False))  # noqa: FBT003 - their signature
    client = module.LDClient(config.Config("sdk-bench", update_processor_class=source, send_events=False))
    context = module.Context.builder("r-42").set("tenant", "acme").build()
    assert client.variation(FLAG, context, True) is False  # noqa: S101, FBT003 - as above; their signature
    yield statement(f'client.variation("{FLAG}", context, True)', {"client": client, "context": context})
    client.close()


@contextmanager
def openfeature() -> Iterator[Contender]:
    """OpenFeature: the provider that keeps flags in memory, which is part of the SDK."""
    api: Any = import_module("openfeature.api")
    provider: Any = import_module("openfeature.provider.in_memory_provider")
    context = import_module("openfeature.evaluation_context").EvaluationContext("r-42", {"tenant": "acme"})
    flag = provider.InMemoryFlag("off", {"on": True, "off": False})
    api.set_provider(provider.InMemoryProvider({FLAG: flag}))
    client = api.get_client()
    assert client.get_boolean_value(FLAG, True, context) is False  # noqa: S101, FBT003 - as above
    yield statement(f'client.get_boolean_value("{FLAG}", True, context)', {"client": client, "context": context})
    api.shutdown()


@contextmanager
def unleash() -> Iterator[Contender]:
    """Unleash: bootstrapped from a dict, nothing fetched, metrics off."""
    module: Any = import_module("UnleashClient")
    with tempfile.TemporaryDirectory() as folder:
        cache = import_module("UnleashClient.cache").FileCache("haltline-bench", directory=folder)
        feature = {"name": FLAG, "enabled": False, "strategies": [{"name": "default", "parameters": {}}]}
        cache.bootstrap_from_dict({"version": 1, "features": [feature]})
        client = module.UnleashClient(
            "http://127.0.0.1:9/api", "haltline-bench", cache=cache, disable_metrics=True, disable_registration=True
        )
        client.initialize_client(fetch_toggles=False)
        context = {"userId": "r-42", "properties": {"tenant": "acme"}}
        assert client.is_enabled(FLAG, context) is False  # noqa: S101 - as above
        yield statement(f'client.is_enabled("{FLAG}", context)', {"client": client, "context": context})
        client.destroy()


PEERS: Final[dict[str, Callable[[], AbstractContextManager[Contender]]]] = {
    "growthbook": growthbook,
    "launchdarkly-server-sdk": launchdarkly,
    "openfeature-sdk": openfeature,
    "UnleashClient": unleash,
}
"""By the name of their distribution."""


def main(rounds: int) -> int:
    """Measure each peer against the check, in pairs, and print what came of it."""
    with ExitStack() as stack:
        run = stack.enter_context(agent(KILLS))
        check = statement('run.check("send_email")', {"run": run})
        for name, peer in PEERS.items():
            with peer() as evaluation:
                result = compare(check, evaluation, rounds=rounds, loops=EVALUATIONS, base_loops=CHECKS)
            told = {"peer": name, "version": metadata.version(name), "ratio": result.ratio}
            print(json.dumps({**told, "check_s": result.base_s, "peer_s": result.taken_s}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
