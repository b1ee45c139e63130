"""What `rlcore submit` finds out before anything starts, without a cluster."""

from __future__ import annotations

import asyncio
import io
import json
import shlex
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
import ray
import requests
from ray.exceptions import AuthenticationError

from emotion_task.config import PipelineConfig
from rlcore.actors.placement import run_bundles
from rlcore.commands.submit import submit
from rlcore.config import JobConfig
from rlcore.errors import ClusterError, ConfigError, PlacementError, StoppedError
from rlcore.submit.cluster import address_of, connect
from rlcore.submit.ray_job import exit_code, follow, next_submission_id
from rlcore.submit.request import JobCommand, job_request
from rlcore.submit.working_dir import check_working_dir, heaviest

pytestmark = pytest.mark.slow

CONFIG = """
run_dir: runs/mine
model: {path: m}
task: {target: "a.b:C"}
rewards: {judge: {target: "a.b:judge", args: {key: "${oc.env:JUDGE_KEY}"}}}
"""
SECRET = "s3cret-value"
WORDS = ["cluster.job.storage=/shared", "cluster.job.secrets.JUDGE_KEY=submitter"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration in the working folder that reads a secret, which is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(CONFIG)
    return "configs/mine.yaml"


def test_a_command_of_the_line_runs_as_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    section = CONFIG.replace("run_dir: runs/mine\n", "").replace("\n", "\n  ")
    (tmp_path / "line.yaml").write_text(f"run_dir: runs/line\ncorpus: {{root: list.csv}}\nrl:{section}")
    (tmp_path / "list.csv").write_text("")
    command = JobCommand(
        words=("emotion", "ablation"),
        flags=("--seeds", "0,1"),
        schema=PipelineConfig,
        run=lambda config: config.rl,
        section="rl.",
    )
    words = [f"rl.{word}" for word in WORDS]
    request = job_request(["line.yaml"], words, run_id="tuesday", command=command)
    assert shlex.split(request.entrypoint) == [
        *["exec", "emotion", "ablation", "--config", "line.yaml", *words],
        *["run_dir=/shared/runs/tuesday", "--seeds", "0,1"],
    ]
    assert (request.run_id, request.metadata["rlcore_run_dir"]) == ("tuesday", "/shared/runs/tuesday")
    assert request.needed == {"--config": ("line.yaml",), "corpus.root": ("list.csv",)}
    assert request.config.rewards["judge"].target == "a.b:judge" and request.secrets == ("JUDGE_KEY",)
    with pytest.raises(ConfigError, match=r"JUDGE_KEY: .* rl\.cluster\.job\.secrets\.JUDGE_KEY=submitter"):
        job_request(["line.yaml"], words[:1], command=command)
    with pytest.raises(ConfigError, match=r"set rl\.cluster\.job\.storage to an absolute folder"):
        job_request(["line.yaml"], words[1:], command=command)


def test_the_job_runs_the_same_command_below_the_shared_storage(config: str, tmp_path: Path) -> None:
    going_on = JobCommand(flags=("--resume",))
    request = job_request([config], [*WORDS, "task.args.name=two words"], run_id="tuesday", command=going_on)
    assert shlex.split(request.entrypoint) == [
        *["exec", "python", "-m", "rlcore.cli", "train", "--config", "configs/mine.yaml", *WORDS],
        *["task.args.name=two words", "run_dir=/shared/runs/tuesday", "--resume"],
    ]
    other = job_request(
        [config], WORDS, run_id="tuesday", command=JobCommand(flags=("--resume", "--accept-changes"))
    )
    assert shlex.split(other.entrypoint)[-2:] == ["--resume", "--accept-changes"]
    both = job_request(
        [config], WORDS, run_id="tuesday", command=JobCommand(flags=("--resume", "--overwrite"))
    )
    assert shlex.split(both.entrypoint)[-2:] == ["--resume", "--overwrite"]
    assert request.run_id == "tuesday" and request.config.run_dir == "/shared/runs/tuesday"
    assert request.runtime_env == {
        "working_dir": str(tmp_path),
        "excludes": [".git", "/runs", "/checkpoints", "/data"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120", "JUDGE_KEY": SECRET},
    }
    assert request.metadata["rlcore_run"] == "tuesday"
    assert request.needed == {"--config": ("configs/mine.yaml",)}
    (tmp_path / "m").mkdir()  # the model's folder, if it is one
    assert request.needed == {"--config": ("configs/mine.yaml",), "model.path": ("m",)}
    assert SECRET not in repr(request) + request.entrypoint + str(request.metadata)


def test_a_secret_of_the_nodes_need_not_be_known_here(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    request = job_request([config], [WORDS[0], "cluster.job.secrets.JUDGE_KEY=cluster"])
    assert "JUDGE_KEY" not in request.runtime_env["env_vars"]
    plain = job_request([config], [WORDS[0], "cluster.job.env_vars.JUDGE_KEY=none"])
    assert plain.runtime_env["env_vars"]["JUDGE_KEY"] == "none"
    assert plain.config.rewards["judge"].args["key"] == "none"


@pytest.mark.parametrize(
    ("words", "is_set", "message"),
    [
        (
            [WORDS[0]],
            True,
            "JUDGE_KEY: the configuration reads it from the environment, which the job does not",
        ),
        (
            WORDS,
            False,
            "cluster.job.secrets.JUDGE_KEY: is submitter, but JUDGE_KEY is not set here: export it",
        ),
        (
            [WORDS[1]],
            True,
            "run_dir: got 'runs/mine', which would lie in the job's copy of the working folder",
        ),
        ([*WORDS, "run_dir=runs/a b"], True, "run_dir's last part: got 'a b', must be letters"),
        (
            [*WORDS, "run_dir=${oc.env:JUDGE_KEY}/mine"],
            True,
            "run_dir: holds JUDGE_KEY, which is in cluster.",
        ),
        (
            [*WORDS, "run_dir=${oc.env:SCRATCH}/mine", "cluster.job.secrets.SCRATCH=cluster"],
            True,
            "run_dir: holds SCRATCH, which is in cluster.job.secrets; the path is settled here",
        ),
        (
            [*WORDS, "cluster.job.storage=${oc.env:SCRATCH}", "cluster.job.secrets.SCRATCH=cluster"],
            True,
            "cluster.job.storage: holds SCRATCH, which is in cluster.job.secrets",
        ),
        ([*WORDS, "cluster.job.working_dir=configs/none"], True, "none is no folder"),
        ([*WORDS, "cluster.job.working_dir=inner"], True, "lies outside of cluster.job.working_dir"),
        ([*WORDS, "rollout.num_replica=2"], True, "did you mean rollout.num_replicas?"),
    ],
)
def test_what_the_job_would_miss_is_said(
    config: str, words: list[str], is_set: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("inner").mkdir()
    if not is_set:
        monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError) as error:
        job_request([config], words)
    assert message in str(error.value) and SECRET not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["${oc.env: KEY}", "${ oc.env:KEY}", "${oc.env:'KEY'}", "${oc.env:${oc.env:WHICH}}", "k-${oc.env:KEY}"],
)
def test_a_variable_is_missed_however_it_is_asked_for(config: str, text: str) -> None:
    words = [*WORDS, f"task.args.key={json.dumps(text)}", "cluster.job.env_vars.WHICH=KEY"]
    with pytest.raises(ConfigError, match="KEY: the configuration reads it from the environment"):
        job_request([config], words)
    assert job_request([config], [*words, "cluster.job.secrets.KEY=cluster"]).secrets == ("JUDGE_KEY",)


def test_a_variable_with_a_default_may_be_missing(config: str) -> None:
    request = job_request([config], [*WORDS, "task.args.key=${oc.env:KEY,none}", "learner.lr=${oc.env:LR,1}"])
    assert request.config.task.args["key"] == "none" and request.config.learner.lr == 1


def test_a_folder_too_large_is_refused_and_its_weight_is_named(tmp_path: Path) -> None:
    for name, size in {
        "code.py": 10,
        "data/train.wav": 5_000_000,
        "my/data/kept.txt": 20,
        ".git/pack": 5_000_000,
        "ignored/x": 5_000_000,
        "assets/a/model.bin": 2_000_000,
        "assets/a/vocab.txt": 1000,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (tmp_path / ".gitignore").write_text("ignored/\n")
    exclude = JobConfig().exclude
    sizes = check_working_dir(
        tmp_path, exclude, max_mb=3, needed={"--config": ["code.py"], "model.path": ["assets/a"]}
    )
    names = {".gitignore", "code.py", "my/data/kept.txt", "assets/a/model.bin", "assets/a/vocab.txt"}
    assert set(map(str, sizes)) == names
    with pytest.raises(ConfigError, match=r"has 2\.0 MB to copy(.|\n)*2\.0 MB  assets/a/model\.bin"):
        check_working_dir(tmp_path, exclude, max_mb=1, needed={})


IGNORED = {
    "task.args.manifest": (
        "data/manifest.jsonl",
        ".gitignore",
        "data/",
        "line 2 of .gitignore names it (data/)",
    ),
    "rewards.short.target": (
        "my/rewards.py",
        "my/.gitignore",
        "*.py",
        "line 2 of my/.gitignore names it (*.py)",
    ),
    "task.target": ("tasks/__init__.py", ".rayignore", "/tasks", "line 2 of .rayignore names it (/tasks)"),
    "rewards.short.args.templates.0": (
        "a.txt",
        ".gitignore",
        "*.txt",
        "line 2 of .gitignore names it (*.txt)",
    ),
    "model.path": ("m/x.bin", "m/.gitignore", "*.bin", "line 2 of m/.gitignore names it (*.bin)"),
    "rewards.short.args.words": ("words", None, "words", "entry 1 of cluster.job.exclude names it (words)"),
}


@pytest.mark.parametrize("key", IGNORED)
def test_what_the_configuration_names_and_ray_leaves_here_is_said_before_the_job(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {name: path for name, (path, *_) in IGNORED.items()}
    for path in (*named.values(), "m/config.json", "m/__pycache__/a.pyc", "elsewhere.jsonl", "cache/kept"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    Path("run.yaml").write_text(
        """
run_dir: /shared/runs/mine
model: {path: m, media_cache: cache}
task: {target: "tasks:Mine", args: {manifest: ./data/manifest.jsonl, voice: /shared/elsewhere.jsonl}}
rewards: {short: {target: "my.rewards:short", args: {templates: [a.txt], words: words}}}
"""
    )
    (tmp_path / "rlcore" / "rewards").mkdir(parents=True)
    (tmp_path / "rlcore" / "rewards" / "rules.py").touch()  # a checkout, of what the nodes have installed
    request = job_request(["run.yaml"], ["rewards.long.target=rlcore.rewards.rules:Length"])
    assert "rewards.long.target" not in request.needed
    texts = ["x" * 3000, "a/" * 900, "..", ".", "", " ", "nul\0", "(", "/", "no such/file.txt"]
    words = [f"rewards.short.args.texts={json.dumps(texts)}"]
    assert job_request(["run.yaml"], words).needed == job_request(["run.yaml"], []).needed
    (tmp_path / ".gitignore").write_text("cache/\nelsewhere.jsonl\n*.pyc\n")  # what the job does not need
    check_working_dir(tmp_path, [".git"], max_mb=1, needed=request.needed)
    path, file, pattern, reason = IGNORED[key]
    (tmp_path / ".gitignore").unlink()
    if file is not None:
        (tmp_path / file).write_text(f"# not a file\n{pattern}\n")
    with pytest.raises(ConfigError) as error:
        check_working_dir(tmp_path, [".git" if file else pattern], max_mb=1, needed=request.needed)
    first, *others, advice = str(error.value).splitlines()
    assert first == f"{key}: {path} would stay here, because {reason}" and not others
    assert "un-ignore it" in advice and "absolute path" in advice


def test_a_path_that_leads_out_of_the_working_folder_is_refused(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.jsonl").touch()
    monkeypatch.chdir(tmp_path / "configs")
    request = job_request(["mine.yaml"], [*WORDS, "task.args.manifest=../list.jsonl"])
    with pytest.raises(
        ConfigError, match=r"task\.args\.manifest: \.\./list\.jsonl would stay here, because it li"
    ):
        check_working_dir(request.working_dir, [], max_mb=1, needed=request.needed)


def test_many_small_files_are_named_by_their_folder() -> None:
    sizes = {PurePosixPath(f"clips/{i}.wav"): 10 for i in range(9)} | {PurePosixPath("a/b/c.py"): 5}
    assert heaviest(sizes) == [(PurePosixPath("clips"), 90), (PurePosixPath("a/b/c.py"), 5)]


@pytest.fixture
def answer() -> Iterator[Callable[[int, str], str]]:
    """A server that gives one answer to everything; returns its address."""
    servers = []

    def start(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            "no token",
            "refuses this terminal's token (Authentication required: no token). Both must hold",
        ),
        (
            403,
            "bad token",
            "refuses this terminal's token (Authentication failed: bad token). Both must hold",
        ),
        (404, "", "answers, but not as a Ray dashboard does"),
        (200, "<html>", "answers, but not as a Ray dashboard does"),
        (
            200,
            json.dumps({"ray_version": "2.40.0"}),
            f"runs Ray 2.40.0, this terminal {ray.__version__}; they",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used(
    answer: Callable[[int, str], str],
    status: int,
    body: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError) as error:
        connect(JobConfig(address=answer(status, body)))
    assert message in str(error.value)


def test_a_proxy_of_the_environment(
    answer: Callable[[int, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    # A forwarded port is on this machine: no proxy is asked.
    with pytest.raises(ClusterError, match=r"runs Ray 2\.40\.0"):
        connect(JobConfig(address=answer(200, json.dumps({"ray_version": "2.40.0"}))))
    with socket.create_server(("127.0.0.2", 0)) as head:
        address = f"http://127.0.0.2:{head.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"proxy that cannot be used .*NO_PROXY.*requests\[socks\]"):
            connect(JobConfig(address=address))


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
    assert address_of(JobConfig()) == address
    with pytest.raises(ClusterError, match="no Ray cluster answers at"):
        connect(JobConfig())


@pytest.mark.parametrize(
    "address", ["http://head:8265x", "http://[::1:8265", "http://:8265", "http://h:99999"]
)
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"address: got .* must be the dashboard's, as http://HOST:8265"):
        JobConfig(address=address)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address.removeprefix("http://"))
    with pytest.raises(ConfigError, match="RAY_API_SERVER_ADDRESS: got 'http://"):
        connect(JobConfig())


def test_addresses_of_a_dashboard() -> None:
    for address in ("http://head:8265", "https://ray.example.org/", "http://[::1]:8265"):
        assert JobConfig(address=address).address == address


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (requests.ReadTimeout("read timed out"), "http://head did not say .*: read timed out"),
        (RuntimeError("Request failed with status code 500"), "http://head did not say .*status code 500"),
        (AuthenticationError("expired. Log in"), r"refuses this terminal's token \(expired\)"),
    ],
)
def test_a_cluster_that_fails_after_it_has_answered(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    async def tail_job_logs(submission_id: str) -> AsyncIterator[str]:
        yield ""

    client = SimpleNamespace(
        address="http://head",
        list_jobs=fail,
        get_job_info=fail,
        get_job_status=fail,
        tail_job_logs=tail_job_logs,
    )
    with pytest.raises(ClusterError, match=message):
        next_submission_id(client, "mine", again=True)
    with pytest.raises(ClusterError, match=message):
        exit_code(client, "mine")
    monkeypatch.setattr("rlcore.submit.ray_job.LOST_S", -1.0)
    with pytest.raises(ClusterError, match=message):
        follow(client, "mine", io.StringIO())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (requests.ReadTimeout("read timed out"), "http://head did not take the job: read timed out$"),
        (
            RuntimeError("No available agent"),
            "did not take the job: No available agent A cluster that has just",
        ),
    ],
)
def test_a_job_that_is_not_taken(
    config: str, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    client = SimpleNamespace(address="http://head", list_jobs=lambda: [], submit_job=fail)
    monkeypatch.setattr("rlcore.submit.ray_job.connect", lambda job: client)
    request = job_request([config], [*WORDS, "cluster.job.autoscales=true"])
    with pytest.raises(ClusterError, match=message):
        submit(request, again=False)


def test_the_driver_takes_what_it_is_said_to(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    client = SimpleNamespace(
        address="http://head",
        list_jobs=lambda: [],
        submit_job=lambda **options: asked.append(options["entrypoint_num_cpus"]),
    )
    actors = sum(bundle.num_cpus for bundle in run_bundles(job_request([config], WORDS).config))
    monkeypatch.setattr("rlcore.submit.ray_job.connect", lambda job: client)
    monkeypatch.setattr("rlcore.submit.ray_job.nodes", lambda client: [{"CPU": actors}])

    def start(*words: str) -> None:
        assert submit(job_request([config], [*WORDS, *words]), again=False, wait=False) == 0

    start()  # a machine whose actors take all of it
    with pytest.raises(PlacementError, match="1 x driver"):
        start("cluster.job.num_cpus=0.5")
    monkeypatch.setattr("rlcore.submit.ray_job.nodes", lambda client: [{"CPU": actors}, {"CPU": 0.5}])
    start("cluster.job.num_cpus=0.5")
    assert asked == [0.0, 0.5]


def test_a_run_goes_on_only_where_it_is_asked_to() -> None:
    def client(*jobs: tuple[str, str]) -> SimpleNamespace:
        """Ray lists them in any order."""
        listed = [
            SimpleNamespace(
                metadata={"rlcore_run": job.split(".")[0]}, status=status, submission_id=job, start_time=i
            )
            for i, (job, status) in enumerate(jobs)
        ]
        others = [SimpleNamespace(metadata=None, status="RUNNING")]
        return SimpleNamespace(list_jobs=lambda: others + listed[::-1])

    assert next_submission_id(client(("other", "RUNNING")), "mine", again=False) == "mine"
    assert next_submission_id(client(), "mine", again=True) == "mine"
    assert next_submission_id(client(("mine", "FAILED")), "mine", again=True) == "mine.2"
    ended = client(("mine", "STOPPED"), ("mine.2", "FAILED"))
    assert next_submission_id(ended, "mine", again=True) == "mine.3"
    # Where an earlier one was deleted, its number is not given again.
    assert next_submission_id(client(("mine.2", "FAILED")), "mine", again=True) == "mine.3"
    tenth = client(("mine.9", "FAILED"), ("mine.10", "FAILED"))
    assert next_submission_id(tenth, "mine", again=True) == "mine.11"
    with pytest.raises(ClusterError, match=r"run mine has been on this cluster \(mine\.2: FAILED\)"):
        next_submission_id(ended, "mine", again=False)
    with pytest.raises(ClusterError, match="run mine is RUNNING as job mine"):
        next_submission_id(client(("mine", "RUNNING")), "mine", again=True)


def test_a_log_that_breaks_off_is_taken_up_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [["one\n", "tw"], ["one\ntwo\n", "three\n"]]
    states = ["RUNNING", "SUCCEEDED"]

    async def tail_job_logs(submission_id: str) -> AsyncIterator[str]:
        attempt = tries.pop(0)
        for text in attempt:
            yield text
        if tries:
            raise RuntimeError("connection closed")

    async def no_wait(seconds: float) -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", no_wait)
    out = io.StringIO()
    client = SimpleNamespace(tail_job_logs=tail_job_logs, get_job_status=lambda _: states.pop(0))
    follow(client, "mine", out)
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_the_exit_code_is_the_commands_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlcore.submit.ray_job.EXIT_CODE_S", 0.0)
    info = SimpleNamespace(status="FAILED", driver_exit_code=2, message="no environment")

    def code(**changes: object) -> int:
        changed = SimpleNamespace(**{**vars(info), **changes})
        return exit_code(SimpleNamespace(get_job_info=lambda _: changed), "mine")

    assert code() == 2
    assert code(status="SUCCEEDED", driver_exit_code=0) == 0
    with pytest.raises(StoppedError, match="job mine was stopped"):
        code(status="STOPPED", driver_exit_code=None)
    with pytest.raises(ClusterError, match="job mine FAILED: no environment"):
        code(driver_exit_code=None)
