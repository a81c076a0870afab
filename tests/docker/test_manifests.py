"""compose.yaml and the manifests for Kubernetes: their numbers fit together, and what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from qworker import App
from qworker.cli.root import root

from support import RedisServer, wait_until
from support.containers import DOCKERFILE, REPO, Container, stages
from support.redis_server import free_port

FOLDER = REPO / "docker"
#: What a cold and a hard stop take after the soft time-out, and one second to spare.
AFTER_S = 5
UNITS = {"Ki": 1, "Mi": 1024, "M": 1024, "Gi": 1024 * 1024, "G": 1024 * 1024}  # compose's M is Mi


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


COMPOSE = load("compose.yaml")[0]
MANIFESTS = [document for path in sorted((FOLDER / "kubernetes").glob("*.yaml")) for document in load(str(path))]


def find(kind: str) -> dict[str, Any]:
    (found,) = [document for document in MANIFESTS if document["kind"] == kind]
    return found


POD = find("Deployment")["spec"]["template"]
(WORKER,) = POD["spec"]["containers"]
PROBES = {name: probe["httpGet"] for name, probe in WORKER.items() if name.endswith("Probe")}
SETTINGS: dict[str, str] = find("ConfigMap")["data"]
SERVICE = COMPOSE["services"]["worker"]
IMAGE = stages(DOCKERFILE.read_text("utf-8"))[-1]


def kib(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", size).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def default(text: object) -> str:
    """What `${NAME:-default}` is when nobody sets NAME."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def options() -> set[str]:
    return {f"QWORKER_{(param.name or '').upper()}" for param in root.params}


# --- what both have in common ---


@pytest.mark.parametrize(
    ("grace_s", "soft_s"),
    [
        (int(SERVICE["stop_grace_period"].removesuffix("s")), SERVICE["environment"]["QWORKER_SOFT_SHUTDOWN_TIMEOUT"]),
        (POD["spec"]["terminationGracePeriodSeconds"], SETTINGS["QWORKER_SOFT_SHUTDOWN_TIMEOUT"]),
        (30, IMAGE.environment({"PATH": ""})["QWORKER_SOFT_SHUTDOWN_TIMEOUT"]),
    ],
    ids=["compose", "kubernetes", "the least that the image asks for"],
)
def test_a_stop_ends_before_the_kill(grace_s: int, soft_s: str) -> None:
    assert grace_s >= float(soft_s) + AFTER_S


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (SERVICE["environment"], SERVICE["deploy"]["resources"]["limits"]["memory"]),
        (SETTINGS, WORKER["resources"]["limits"]["memory"]),
    ],
    ids=["compose", "kubernetes"],
)
def test_children_at_their_limit_leave_room_below_that_of_the_container(settings: dict[str, Any], limit: str) -> None:
    children = int(default(settings["QWORKER_CONCURRENCY"]))
    hard = int(settings["QWORKER_MAX_MEMORY_HARD"])
    assert int(settings["QWORKER_MAX_MEMORY_PER_CHILD"]) < hard
    assert children * hard + 100 * 1024 <= kib(limit)  # 100 MiB: master, spawner, what is in /tmp


@pytest.mark.parametrize(
    "names",
    [SERVICE["environment"], SETTINGS, find("Secret")["stringData"], IMAGE.environment({"PATH": ""})],
    ids=["compose", "kubernetes", "secret", "image"],
)
def test_every_variable_is_an_option_of_the_worker(names: dict[str, Any]) -> None:
    assert {name for name in names if name.startswith("QWORKER_")} <= options()


# --- compose ---


def test_compose_runs_the_worker_without_any_right() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in SERVICE["tmpfs"]] == ["/tmp"]


def test_compose_asks_for_health_as_the_image_does() -> None:
    assert SERVICE["healthcheck"]["test"][0] == "CMD"
    _, command = IMAGE.last("HEALTHCHECK").text.split("CMD ")
    assert SERVICE["healthcheck"]["test"][1:] == yaml.safe_load(command)
    assert SERVICE["stop_signal"] == IMAGE.last("STOPSIGNAL").text


def test_compose_builds_our_image_and_mounts_an_application_that_exists() -> None:
    build = SERVICE["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
    folder, inside, mode = default(SERVICE["volumes"][0]).split(":")
    assert (FOLDER / folder / f"{default(SERVICE['environment']['QWORKER_APP'])}.py").is_file()
    assert (inside, mode) == (IMAGE.last("WORKDIR").text, "ro")


def test_the_redis_of_compose_has_nothing_that_doctor_would_complain_of() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert command[0] == "redis-server"
    with RedisServer(*command[1:]) as server:
        done = subprocess.run(
            [sys.executable, "-m", "qworker", "-b", server.url, "doctor"], capture_output=True, text=True, timeout=60
        )
        assert "CHECK broker" not in done.stdout
        assert f"{server.url} answers" in done.stdout


def test_the_worker_and_the_redis_of_compose_run_the_example(
    run: Callable[..., Container], group: Callable[..., list[Path]]
) -> None:
    settings = {name: default(value) for name, value in SERVICE["environment"].items()}
    folder, inside, _ = default(SERVICE["volumes"][0]).split(":")
    memory = kib(SERVICE["deploy"]["resources"]["limits"]["memory"]) * 1024
    with RedisServer(*COMPOSE["services"]["redis"]["command"][1:]) as server:
        urls = {name: url.replace("//redis:6379", f"//127.0.0.1:{server.port}") for name, url in settings.items()}
        container = run(env=urls, binds={FOLDER / folder: inside}, groups=group(memory=memory)).wait_ready()
        with closing(App("shop", broker=urls["QWORKER_BROKER"], backend=urls["QWORKER_RESULT_BACKEND"])) as app:
            result = app.send_task("shop.receipt", args=[[["tea", 300], ["milk", 120]]])
            assert result.get(timeout=20) == {"lines": 2, "cents": 420}
        assert "WARNING" not in container.log
        container.stop()
        assert container.wait() == 0


# --- Kubernetes ---


def test_the_pod_may_do_nothing_that_it_does_not_need() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert WORKER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_what_has_to_be_written_to_is_a_volume() -> None:
    (mount,) = WORKER["volumeMounts"]
    (volume,) = POD["spec"]["volumes"]
    assert mount == {"name": volume["name"], "mountPath": IMAGE.environment({"PATH": ""})["HOME"]}
    assert volume["emptyDir"]["medium"] == "Memory"


def test_liveness_does_not_depend_on_the_broker_and_readiness_does() -> None:
    paths = {name.removesuffix("Probe"): probe["path"] for name, probe in PROBES.items()}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_term_alone_stops_the_worker() -> None:
    assert "lifecycle" not in WORKER


def test_no_service_gets_into_the_worker_s_environment() -> None:
    assert POD["spec"]["enableServiceLinks"] is False


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = POD["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert find(kind)["spec"]["selector"]["matchLabels"] == labels
    assert POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels


def test_what_the_deployment_refers_to_is_there() -> None:
    named = [(name.removesuffix("Ref"), of["name"]) for source in WORKER["envFrom"] for name, of in source.items()]
    assert named == [
        ("configMap", find("ConfigMap")["metadata"]["name"]),
        ("secret", find("Secret")["metadata"]["name"]),
    ]
    assert find("ScaledObject")["spec"]["scaleTargetRef"]["name"] == find("Deployment")["metadata"]["name"]
    listed = find("Kustomization")["resources"]
    assert {path.name for path in (FOLDER / "kubernetes").glob("*.yaml")} == {*listed, "kustomization.yaml"}


def test_keda_decides_on_the_number_of_replicas_alone() -> None:
    assert "replicas" not in find("Deployment")["spec"]
    assert find("ScaledObject")["spec"]["minReplicaCount"] >= 1


def test_keda_looks_at_a_queue_that_the_worker_takes_from() -> None:
    prometheus, redis = (trigger["metadata"] for trigger in find("ScaledObject")["spec"]["triggers"])
    assert redis["listName"] in SETTINGS["QWORKER_QUEUES"].split(",")
    assert f'queue="{redis["listName"]}"' in prometheus["query"]
    (endpoint,) = find("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert f'job="{endpoint["relabelings"][0]["replacement"]}"' in prometheus["query"]
    assert all(isinstance(value, str) for trigger in (prometheus, redis) for value in trigger.values())


def test_probes_and_prometheus_ask_where_the_worker_listens() -> None:
    (port,) = WORKER["ports"]
    assert SETTINGS["QWORKER_HTTP"].rpartition(":")[2] == str(port["containerPort"])
    (endpoint,) = find("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {probe["port"] for probe in PROBES.values()} | {endpoint["port"]} == {port["name"]}
    secret = endpoint["authorization"]["credentials"]
    assert secret == {"name": find("Secret")["metadata"]["name"], "key": "QWORKER_HTTP_TOKEN"}
    assert secret["key"] in find("Secret")["stringData"]


def test_the_worker_of_the_manifests_runs_and_answers_as_they_say(
    worker: Callable[..., Container], group: Callable[..., list[Path]]
) -> None:
    memory = kib(WORKER["resources"]["limits"]["memory"]) * 1024
    secrets = {"QWORKER_HTTP_TOKEN": find("Secret")["stringData"]["QWORKER_HTTP_TOKEN"]}
    port = free_port()
    env = {**SETTINGS, **secrets, "QWORKER_HTTP": SETTINGS["QWORKER_HTTP"].replace("9540", str(port))}
    container = worker(env=env, groups=group(memory=memory)).wait_ready()
    assert len(container.children()) == int(SETTINGS["QWORKER_CONCURRENCY"])
    assert "the cgroup allows" not in container.log
    for name, probe in PROBES.items():
        assert ask(port, probe["path"])[0] == 200, name
    assert container.run("qworker", "health").returncode == 0
    assert ask(port, "/metrics")[0] == 401
    (metric,) = set(re.findall(r"qworker_\w+", find("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]))
    gauge = f'{metric}{{queue="{SETTINGS["QWORKER_QUEUES"]}"}}'
    wait_until(lambda: gauge in ask(port, "/metrics", secrets["QWORKER_HTTP_TOKEN"])[1], f"{gauge} is told")
    container.stop()
    assert container.wait() == 0


def ask(port: int, path: str, token: str = "") -> tuple[int, str]:
    """The status and the text of the answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as link:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        return answer.status, answer.read().decode()
