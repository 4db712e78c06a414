"""The Serve config that we ship, and what a replica makes of its settings. Ray is not started."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from service.cluster import autoscaling, middleware
from service.errors import StartupError
from service.settings import Settings
from tests.helpers.server import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='Ray is missing: pip install "figment[ray]"'
)

CONFIG = yaml.safe_load((ROOT / "ops" / "ray" / "serve.yaml").read_text())
DOCS = (ROOT / "docs" / "cluster.md").read_text()
(APPLICATION,) = CONFIG["applications"]
(DEPLOYMENT,) = APPLICATION["deployments"]
KEY = "lab:sha256:" + "0" * 64


def quietly(module: str) -> ModuleType:
    """Ray's modules warn of each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


@pytest.fixture(scope="module")
def cluster() -> ModuleType:
    return quietly("service.cluster.deployment")


def test_serve_config_is_valid(cluster: ModuleType) -> None:
    schema = quietly("ray.serve.schema").ServeDeploySchema.model_validate(CONFIG)
    assert schema.applications[0].import_path == "service.cluster:app"
    # The schema lets numbers by that contradict each other; what it becomes does not.
    scaled = quietly("ray.serve.config").AutoscalingConfig.model_validate(
        DEPLOYMENT["autoscaling_config"]
    )
    assert 2 <= scaled.min_replicas <= scaled.max_replicas
    assert scaled.policy.get_policy()(**scaled.policy.policy_kwargs) is not None


def known_to_serve() -> set[str]:
    """Environment variables that Ray Serve reads."""
    package = Path(quietly("ray.serve").__file__ or "").parent
    return set(re.findall(r"RAY_SERVE_\w+", (package / "_private/constants.py").read_text()))


def test_serve_config_names_existing_things(cluster: ModuleType) -> None:
    assert DEPLOYMENT["name"] == cluster.app._bound_deployment.name
    known = {f"FIGMENT_{name.upper()}" for name in Settings.model_fields}
    assert set(APPLICATION["runtime_env"]["env_vars"]) <= known
    policy = DEPLOYMENT["autoscaling_config"]["policy"]
    autoscaling.ImageQueuePolicy(**policy["policy_kwargs"])
    assert policy["policy_function"] == "service.cluster.autoscaling:ImageQueuePolicy"
    variables = CONFIG["controller_options"]["runtime_env"]["env_vars"]
    assert variables == cluster.SERVE_ENVIRONMENT, "the command `serve run` would do otherwise"
    callback = variables["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert callback == f"{middleware.__name__}.{middleware.middlewares.__name__}"
    assert set(variables) <= known_to_serve()


def test_serve_config_and_code_have_the_same_options(cluster: ModuleType) -> None:
    """Values that ``serve.yaml`` repeats from the code."""
    options = cluster.app._bound_deployment._deployment_config
    shipped = DEPLOYMENT["autoscaling_config"]
    for name in shipped.keys() - {"policy"}:
        assert getattr(options.autoscaling_config, name) == shipped[name], name
    policy = inspect.signature(autoscaling.ImageQueuePolicy)
    assert not options.autoscaling_config.policy.policy_kwargs
    assert shipped["policy"]["policy_kwargs"] == {
        name: parameter.default for name, parameter in policy.parameters.items()
    }
    assert options.graceful_shutdown_timeout_s == DEPLOYMENT["graceful_shutdown_timeout_s"]
    assert options.max_ongoing_requests > Settings().max_queue + Settings().max_streams


def known(deployment: dict[str, Any]) -> None:
    """Ray takes options that it does not know, and is silent."""
    schema = quietly("ray.serve.schema")
    parts = {
        "ray_actor_options": schema.RayActorOptionsSchema,
        "autoscaling_config": quietly("ray.serve.config").AutoscalingConfig,
    }
    assert deployment.keys() <= schema.DeploymentSchema.model_fields.keys()
    for name, part in parts.items():
        assert deployment.get(name, {}).keys() <= part.model_fields.keys()
    schema.DeploymentSchema.model_validate({"name": "figment", **deployment})


def values(tree: dict[str, Any], *at: str) -> dict[tuple[str, ...], Any]:
    """The leaves of ``tree`` by their paths."""
    found = {}
    for name, value in tree.items():
        found.update(values(value, *at, name) if isinstance(value, dict) else {(*at, name): value})
    return found


def test_docs_show_the_shipped_config() -> None:
    known(DEPLOYMENT)
    shipped = values(DEPLOYMENT)
    options, reload = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
    (shown,) = options["deployments"]
    known(shown)
    both = values(shown).keys() & shipped.keys()
    assert {path[-1] for path in both} == {"name", "num_cpus", "min_replicas", "max_replicas"}
    for path in both:
        assert values(shown)[path] == shipped[path], path
    known(reload)
    assert values(reload).keys() <= shipped.keys()
    for path, value in values(reload).items():
        assert value != shipped[path], "it shows what to change"
        assert type(value) is type(shipped[path])
    assert "ops/ray/serve.yaml" in DOCS


@pytest.mark.parametrize(
    ("resources", "threads", "device"),
    [
        ({"CPU": 2.0}, 2, "cpu"),
        ({"CPU": 0.5}, 1, "cpu"),
        ({}, 1, "cpu"),
        ({"CPU": 4.0, "GPU": 1.0}, 4, "cuda"),
    ],
)
def test_replica_uses_the_resources_assigned_by_ray(
    cluster: ModuleType, resources: dict[str, float], threads: int, device: str
) -> None:
    given = Settings(allow_anonymous=True, workers=3)
    fitted = cluster.fitted(given, resources)
    assert (fitted.threads, fitted.device, fitted.workers) == (threads, device, 1)
    assert cluster.fitted(Settings(allow_anonymous=True, threads=7), resources).threads == 7


@pytest.mark.parametrize(
    "settings",
    [{"api_keys": KEY}, {"api_keys_file": "keys"}, {"allow_anonymous": True}],
)
def test_replica_starts_with_keys_or_anonymous_access(cluster: ModuleType, settings: Any) -> None:
    assert cluster.fitted(Settings(**settings), {}).host == "0.0.0.0"


def test_replica_without_keys_does_not_start(cluster: ModuleType) -> None:
    with pytest.raises(
        StartupError, match=r"FIGMENT_API_KEYS .*, or, .*FIGMENT_ALLOW_ANONYMOUS=true"
    ):
        cluster.fitted(Settings(), {"CPU": 1})
