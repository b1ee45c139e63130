"""What lies in cluster/ against the schemas of those who will read it: Kubernetes, KubeRay, Ray's launcher,
Slurm, container builders. Whether a cloud accepts an image or a machine type cannot be known here.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml

from rlcore import cli

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER = PROJECT / "cluster"
KUBERAY = [CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"]
RAY_UP = sorted((CLUSTER / "ray_up").glob("*.yaml"))


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


@cache
def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@cache
def kubernetes_definitions() -> dict[str, Any]:
    """Kubernetes 1.34's, in which an unknown field is an error."""
    folder = package_folder("kubernetes_validate") / "kubernetes-json-schema" / "v1.34.0-local-strict"
    return json.loads((folder / "_definitions.json").read_text())


def check_kubernetes(value: Any, name: str) -> None:
    """`name` is the definition's, after `io.k8s.api.`."""
    definitions = kubernetes_definitions()
    resource = referencing.Resource.from_contents(definitions)
    registry = resource @ referencing.Registry()
    schema = {"$ref": f"{definitions['$id']}#/$defs/io.k8s.api.{name}"}
    jsonschema.Draft202012Validator(schema, registry=registry).validate(value)


def pod_templates(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = spec.get("rayClusterSpec", spec)
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_manifests_follow_its_api_and_kubernetes(path: Path) -> None:
    schema = json.loads((PROJECT / "tests/data/kuberay_v1.schema.json").read_text())
    (manifest,) = documents(path)
    jsonschema.validate(manifest, schema)
    for template in pod_templates(manifest["spec"]):
        check_kubernetes(template, "core.v1.PodTemplateSpec")
    misspelt = copy.deepcopy(manifest)
    misspelt["spec"]["entrypoints"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, schema)


def test_the_schemas_catch_a_misspelt_field_of_a_pod() -> None:
    (manifest,) = documents(KUBERAY[0])
    template = manifest["spec"]["headGroupSpec"]["template"]
    template["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        check_kubernetes(template, "core.v1.PodTemplateSpec")


def test_what_the_cluster_stands_on_follows_kubernetes() -> None:
    names = {
        "Namespace": "core.v1.Namespace",
        "PersistentVolumeClaim": "core.v1.PersistentVolumeClaim",
        "PriorityClass": "scheduling.v1.PriorityClass",
        "NetworkPolicy": "networking.v1.NetworkPolicy",
    }
    manifests = documents(CLUSTER / "kuberay" / "base.yaml")
    for manifest in manifests:
        check_kubernetes(manifest, names[manifest["kind"]])
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    priorities = {m["metadata"]["name"] for m in manifests if m["kind"] == "PriorityClass"}
    (cluster,) = documents(KUBERAY[0])
    for template in pod_templates(cluster["spec"]):
        volumes = template["spec"]["volumes"]
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
        } <= claims
        assert template["spec"]["priorityClassName"] in priorities


def test_job_and_cluster_ask_for_the_same_cluster() -> None:
    (cluster,), (job,) = map(documents, KUBERAY)
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    for lock in ("cpu.lock", "gpu.lock"):
        text = (PROJECT / "requirements" / lock).read_text()
        assert f"\nray=={cluster['spec']['rayVersion']}\n" in text, lock


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_pods_run_without_root_and_with_a_token(path: Path) -> None:
    (manifest,) = documents(path)
    spec = manifest["spec"]
    assert spec.get("rayClusterSpec", spec)["authOptions"] == {"mode": "token"}
    for template in pod_templates(spec):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.get("hostNetwork") and not any("hostPath" in v for v in pod.get("volumes", []))
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and not security.get("privileged")
            assert security["capabilities"] == {"drop": ["ALL"]}
            mounts = [m["mountPath"] for m in container.get("volumeMounts", [])]
            assert container["name"] == "submitter" or "/dev/shm" in mounts


def test_the_job_runs_a_command_that_exists_on_configurations_that_exist() -> None:
    (job,) = documents(KUBERAY[1])
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "rlcore"
    arguments = cli.parse(cli.build_parser(), words)
    for file in arguments.config:
        assert (PROJECT / Path(file).relative_to("/opt/rlcore")).is_file()
    assert arguments.resume and arguments.overwrite


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_files_follow_its_launcher(path: Path) -> None:
    """Ray's own schema, and what its launcher checks beyond it."""
    (config,) = documents(path)
    schema = json.loads((package_folder("ray") / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["file_mounts"] == {"/home/rlcore/.ray/auth_token": "~/.ray/auth_token"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in (c for c in starts if "ray start" in c):
        assert "RAY_AUTH_MODE=token" in command
        subprocess.run(["bash", "-n", "-c", command], check=True)
    assert any("--autoscaling-config=" in c for c in starts)
    if "docker" in config:
        commands = config["initialization_commands"]
        for command in commands:
            subprocess.run(["bash", "-n", "-c", command], check=True)
        # The nodes log in where the image is, and the container's user may write checkpoints.
        registry = config["docker"]["image"].split("/")[0]
        assert any(registry in c and ("docker login" in c or "configure-docker" in c) for c in commands)
        assert commands[-1] == "sudo install -d -o 1000 -g 1000 /mnt/checkpoints"
    if "available_node_types" in config:
        types = config["available_node_types"]
        assert config["head_node_type"] in types
        assert sum(t.get("max_workers", 0) for t in types.values()) <= config["max_workers"]


def test_cloud_nodes_are_not_open_to_the_world() -> None:
    for path in RAY_UP:
        text = path.read_text()
        assert "0.0.0.0/0" not in text and "--privileged" not in text
        (config,) = documents(path)
        assert config["provider"]["type"] == "local" or config["provider"]["use_internal_ips"] is True


SLURM = CLUSTER / "slurm" / "train.sbatch"
DOCKERFILE = CLUSTER / "image" / "Dockerfile"
SBATCH_OPTIONS = {
    "job-name": r"\w+",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "exclusive": None,
    "time": r"(\d+-)?\d+(:\d\d){0,2}",
    "signal": r"(B:|R:)?(SIG)?[A-Z0-9]+(@\d+)?",
    "requeue": None,
    "open-mode": r"append|truncate",
    "output": r"\S+",
}
"""Options of sbatch that the script uses, with the form of their values (sbatch's manual page)."""


def test_slurm_directives_are_options_of_sbatch() -> None:
    lines = SLURM.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert len(directives) > 8
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(lines.index(d) for d in directives) < first_command  # sbatch reads no further
    for directive in directives:
        found = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", directive)
        assert found, directive
        form = SBATCH_OPTIONS[found[1]]
        assert (found[2] is None) if form is None else re.fullmatch(form, found[2]), directive


def test_slurm_gives_ray_the_cpus_of_the_job() -> None:
    """In Slurm 22.05 to 23.02 srun takes one CPU a task, unless it is told otherwise itself."""
    steps = re.findall(r"^ *srun (?:.*\\\n)*.*ray start", SLURM.read_text(), flags=re.MULTILINE)
    assert len(steps) == 2 and all('--cpus-per-task "$SLURM_CPUS_PER_TASK"' in step for step in steps)


STAND_INS = {
    "bin/scontrol": 'printf "%s\\n" $NODES',
    "bin/srun": """
case " $* " in
  *" hostname --ip-address "*) echo "$OWN_NAME" ;;
  *" hostname "*) echo "$INTERFACES" ;;
  *) echo "srun $*" >> "$CALLS"
    [[ " $* " == *"--nodelist=$ENDS "* ]] || exec sleep "$RAY_LASTS" > /dev/null 2>&1 ;;
esac""",
    "venv/bin/ray": '[[ $ENDS != none ]] || printf " 1 node_%s\\n" $NODES',
    "venv/bin/rlcore": 'echo "rlcore $*" >> "$CALLS"',
    "venv/bin/python": f'exec {sys.executable} "$@"',
}
"""Programs of a Slurm cluster and of `VENV` that write down how they were called."""


def slurm_job(folder: Path, nodes: str, own_name: str, interfaces: str, **more: str) -> tuple[int, str, str]:
    """Runs the script on stand-ins: its exit code, what it says, and how Ray and rlcore were called."""
    for name, body in STAND_INS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    variables = {
        **{
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "VENV": str(folder / "venv"),
        },
        **{"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "4", "NODES": nodes},
        **{"OWN_NAME": own_name, "INTERFACES": interfaces, "CALLS": str(calls)},
        **{"RAY_LASTS": "2", "ENDS": "none", **more},
    }
    done = subprocess.run(
        ["bash", str(SLURM), "--config", "x.yaml"],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr, calls.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own_name", "interfaces", "more", "address"),
    [
        ("10.0.0.5", "", {}, "10.0.0.5"),
        ("fe80::1%eth0 10.0.0.5", "", {}, "10.0.0.5"),
        ("127.0.1.1", "169.254.3.4 10.0.0.5 172.17.0.1 fd00::5", {}, "10.0.0.5"),
        ("::1 127.0.0.1", "10.0.0.5", {}, "10.0.0.5"),
        ("127.0.1.1", "10.0.0.5", {"RLCORE_HEAD_IP": "10.1.0.5"}, "10.1.0.5"),
    ],
)
def test_slurm_nodes_are_given_an_address_that_they_can_reach(
    tmp_path: Path, own_name: str, interfaces: str, more: dict[str, str], address: str
) -> None:
    code, said, calls = slurm_job(tmp_path, "n1 n2", own_name, interfaces, **more)
    assert code == 0, said
    assert f"--node-ip-address {address} --port 20007 " in calls and f"--address {address}:20007 " in calls
    assert f"rlcore train --config x.yaml cluster.address={address}:20007 " in calls


@pytest.mark.slow
def test_slurm_says_at_once_that_no_node_could_join(tmp_path: Path) -> None:
    code, said, calls = slurm_job(tmp_path, "n1 n2", "127.0.1.1", "127.0.0.1 fe80::1")
    assert (code, calls) == (1, "")
    assert "n1 names no IPv4 address that other nodes can reach" in said and "set RLCORE_HEAD_IP" in said
    code, said, calls = slurm_job(tmp_path, "n1", "127.0.1.1", "127.0.0.1")  # alone it needs none
    assert code == 0 and "cluster.address=127.0.0.1:20007 " in calls, said


@pytest.mark.slow
@pytest.mark.parametrize("node", ["n1", "n2"])
def test_slurm_does_not_wait_for_a_ray_that_has_ended(tmp_path: Path, node: str) -> None:
    code, said, calls = slurm_job(tmp_path, "n1 n2", "10.0.0.5", "", ENDS=node, RAY_LASTS="20")
    assert (
        code == 1 and f"Ray on {node} has ended before the run began" in said and "rlcore train" not in calls
    )


@pytest.mark.slow
def test_slurm_nodes_close_rays_folder_before_ray_starts(tmp_path: Path) -> None:
    """What the script gives to srun is run here as a node would run it."""
    _, _, calls = slurm_job(tmp_path, "n1 n2", "10.0.0.5", "")
    (closed,) = set(re.findall(r"bash -c (.+?) /tmp/rlcore-\d+ ray start", calls, flags=re.DOTALL))
    assert calls.count(f"bash -c {closed} /tmp/rlcore-{os.getuid()} ray start") == 2
    assert f"--temp-dir /tmp/rlcore-{os.getuid()}/7 " in calls

    def node(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", closed, str(folder), "echo", "ray"], capture_output=True, text=True, check=False
        )

    folder = tmp_path / "rlcore"
    for _ in range(2):
        assert node(folder).stdout == "ray\n" and folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(folder)
    refused = node(link)
    assert refused.returncode == 1 and refused.stdout == "" and f"{link} on " in refused.stderr


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / name
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_shell_scripts_are_clean() -> None:
    peers = (CLUSTER.parent / "benchmarks" / "peers").glob("*.sh")
    for path in (SLURM, CLUSTER / "env.sh", *peers):
        done = tool("shellcheck", "-x", path)
        assert done.returncode == 0, done.stdout


def test_container_file_is_clean_and_does_not_run_as_root() -> None:
    done = tool("hadolint", DOCKERFILE)
    assert done.returncode == 0, done.stdout
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]
    assert [stage.split()[2] for stage in stages] == ["base", "gpu", "cpu"]
    assert all(stage.rstrip().endswith("USER 1000:1000") for stage in stages[1:])
    for source in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE):
        assert all((PROJECT / name).exists() for name in source.split()[:-1]), source


def test_login_shells_of_the_image_find_ray() -> None:
    """Ray's launcher runs its commands in them, where /etc/profile sets PATH anew."""
    _, after = DOCKERFILE.read_text().split("ENV PATH=/opt/venv/bin:$PATH")
    (command,) = re.findall(r"^RUN (.+) > /etc/profile\.d/\w+\.sh$", after, flags=re.MULTILINE)
    written = subprocess.run(
        ["sh", "-c", command], env={"PATH": "/opt/venv/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert written.stdout == "export PATH=/opt/venv/bin:/bin\n"


def test_the_image_has_what_rays_autoscaler_imports() -> None:
    """Of the clouds in cluster/ray_up: the head starts the other nodes."""
    packages = {
        "boto3": "boto3",
        "googleapiclient": "google-api-python-client",
        "google_auth_httplib2": "google-auth-httplib2",
    }
    providers = package_folder("ray") / "autoscaler" / "_private"
    source = "".join(p.read_text() for cloud in ("aws", "gcp") for p in (providers / cloud).glob("*.py"))
    for module, package in packages.items():
        assert re.search(rf"^(import|from) {module}\b", source, flags=re.MULTILINE)
        assert re.search(rf"\s{package}\s", DOCKERFILE.read_text())


def test_alerts_and_scrapes_name_metrics_that_ray_has() -> None:
    (prometheus,), (alerts,) = (
        documents(CLUSTER / "prometheus" / f"{n}.yml") for n in ("prometheus", "alerts")
    )
    assert prometheus["rule_files"] == ["alerts.yml"]
    reporter = "".join(
        p.read_text() for p in (package_folder("ray") / "dashboard" / "modules" / "reporter").glob("*.py")
    )
    for rule in alerts["groups"][0]["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        for metric in re.findall(r"\bray_(\w+)", rule["expr"]):
            assert f'"{metric}"' in reporter, metric


def test_no_secret_lies_in_a_file() -> None:
    secret = re.compile(r"(?i)(token|password|secret|api_key)\w*\s*[:=]\s*['\"]?[A-Za-z0-9+/_-]{16,}")
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            assert not secret.search(path.read_text()), path
