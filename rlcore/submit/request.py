"""Makes of configuration files what Ray's job API is given. Knows no Ray and no cluster."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from rlcore.config import JobConfig, RunConfig, load_config
from rlcore.config import io as config_io
from rlcore.config.env_values import required_variables
from rlcore.config.model import TARGET
from rlcore.errors import ConfigError
from rlcore.records.versions import versions

RUN_KEY = "rlcore_run"
"""Key of the job's metadata that names the run."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _itself(config: Any) -> RunConfig:
    """Returns the configuration of a run, which holds no other."""
    assert isinstance(config, RunConfig)
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCommand:
    """A command that a job runs. Its configuration names a `run_dir`, and holds that of a run."""

    words: tuple[str, ...] = ("python", "-m", "rlcore.cli", "train")
    """The command; `--config FILE ... key=value ...` follow."""
    flags: tuple[str, ...] = ()
    """What follows these."""
    schema: type = RunConfig
    """Dataclass of its configuration."""
    run: Callable[[Any], RunConfig] = _itself
    """Returns the run's configuration in that of the command."""
    section: str = ""
    """Where the run's configuration lies: `rl.`, or empty for the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A job as it will be submitted. The repr holds no secret's value."""

    run_id: str
    config: RunConfig
    """The run's configuration as the job will load it; strings that only the cluster knows are stand-ins."""
    whole: object
    """The command's configuration, which holds the run's."""
    run_dir: str
    """Folder of all that the command leaves behind."""
    entrypoint: str
    working_dir: Path
    files: tuple[str, ...]
    """The configuration's files, below `working_dir`."""
    env_vars: Mapping[str, str]
    """Environment variables of the job, without secrets."""
    secrets: tuple[str, ...]
    """Names of the secret variables that travel with the job."""

    @property
    def job(self) -> JobConfig:
        """The section `cluster.job` of the configuration."""
        return self.config.cluster.job

    @property
    def needed(self) -> dict[str, tuple[str, ...]]:
        """Files and folders below `working_dir` that must travel, by the key that names them.

        These are the configuration's files, and each relative path and `module:name` in its values that lies
        here. What a resumed run may change (`run_dir`, caches) the job makes itself.
        """
        needed: dict[str, tuple[str, ...]] = {"--config": self.files}
        for key, text in _texts(self.whole):
            if found := _inside_paths(text, self.working_dir):
                needed[key] = found
        return needed

    @property
    def runtime_env(self) -> dict[str, object]:
        """Ray's runtime environment, secrets included."""
        environment: dict[str, object] = {
            "working_dir": str(self.working_dir),
            "excludes": list(self.job.exclude),
            "env_vars": {**self.env_vars, **{name: os.environ[name] for name in self.secrets}},
        }
        return environment | ({"pip": list(self.job.pip)} if self.job.pip else {})

    @property
    def metadata(self) -> dict[str, str]:
        """Facts that Ray records of the job: the run, its folder and the version, beside the user's own."""
        return {
            **self.job.metadata,
            RUN_KEY: self.run_id,
            "rlcore_run_dir": self.run_dir,
            "rlcore_version": versions().get("rlcore", ""),
        }


def job_request(
    files: Sequence[str],
    overrides: Sequence[str],
    *,
    run_id: str | None = None,
    command: JobCommand = JobCommand(),
) -> JobRequest:
    """Returns the job that the files describe. The last part of `run_dir`, or `run_id`, names the run.

    Raises:
        ConfigError: the configuration is wrong, would not be found by the job, reads a variable that the job
            does not have, or would be written where no one finds it.
    """
    overrides, schema = list(overrides), command.schema
    raw = config_io.unresolved(files, overrides, schema)
    part: Any = raw
    for name in f"{command.section}cluster.job".split("."):
        part = part[name]
    secrets, env_vars = dict(part["secrets"]), dict(part["env_vars"])
    with environment(_stand_ins(secrets, env_vars)):
        _check_environment(required_variables(raw), secrets, env_vars, command.section)
        whole: Any = load_config(files, overrides, schema)
        storage = command.run(whole).cluster.job.storage
        _check_paths({"run_dir": whole.run_dir, f"{command.section}cluster.job.storage": storage}, secrets)
        run_dir = _run_dir(whole.run_dir, storage, run_id, command.section)
        overrides.append(f"run_dir={run_dir}")
        whole = load_config(files, overrides, schema)
    config = command.run(whole)
    stop = {"RAY_JOB_STOP_WAIT_TIME_S": str(config.cluster.job.stop_timeout_s)}
    working_dir = Path(config.cluster.job.working_dir).resolve()
    if not working_dir.is_dir():
        raise ConfigError(f"{command.section}cluster.job.working_dir: {working_dir} is no folder")
    inside = tuple(_inside(file, working_dir) for file in files)
    words = list(command.words)
    for file in inside:
        words += ["--config", file]
    return JobRequest(
        run_id=run_dir.name,
        config=config,
        whole=whole,
        run_dir=str(run_dir),
        # `exec`: the signal that stops the job reaches the run itself.
        entrypoint="exec " + shlex.join([*words, *overrides, *command.flags]),
        working_dir=working_dir,
        files=inside,
        env_vars={**stop, **config.cluster.job.env_vars},
        secrets=tuple(name for name, source in secrets.items() if source == "submitter"),
    )


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_environment(
    names: set[str], secrets: Mapping[str, str], env_vars: Mapping[str, str], section: str
) -> None:
    """Refuses variables that the job will not have: this terminal's stay here unless they are named."""
    for name in sorted(names - set(secrets) - set(env_vars)):
        raise ConfigError(
            f"{name}: the configuration reads it from the environment, which the job does not share. Say "
            f"where it comes from: {section}cluster.job.secrets.{name}=submitter (this terminal's value goes "
            f"along), {section}cluster.job.secrets.{name}=cluster (the nodes have it), or "
            f"{section}cluster.job.env_vars.{name}=VALUE"
        )
    for name, source in secrets.items():
        if source == "submitter" and not os.environ.get(name):
            raise ConfigError(
                f"{section}cluster.job.secrets.{name}: is submitter, but {name} is not set here: export it, "
                "or set the key to cluster where the nodes have it"
            )


def _stand_ins(secrets: Mapping[str, str], env_vars: Mapping[str, str]) -> dict[str, str]:
    """Returns stand-ins for variables that the job will have and this terminal may not have.

    `load_config` reads them; where a path is wanted they pass for one.
    """
    there = {name: f"/({name} of the cluster)" for name, source in secrets.items() if source == "cluster"}
    return there | {name: str(value) for name, value in env_vars.items() if "${" not in str(value)}


def _check_paths(paths: Mapping[str, str | None], secrets: Iterable[str]) -> None:
    """Refuses secrets in paths, which stand in the job's command as this terminal knows them."""
    for key, path in paths.items():
        for name in secrets:
            value = os.environ.get(name)
            if value and value in (path or ""):
                raise ConfigError(
                    f"{key}: holds {name}, which is in cluster.job.secrets; the path is settled here, and "
                    f"`ray job list` shows it. Write it out, or name {name} in cluster.job.env_vars instead, "
                    "with a value that anyone may see"
                )


def _run_dir(wanted: str, storage: str | None, run_id: str | None, section: str) -> PurePosixPath:
    run_dir = PurePosixPath(wanted)
    run_id = run_dir.name if run_id is None else run_id
    if not _RUN_ID.fullmatch(run_id):
        allowed = "letters, digits, '.', '_' and '-', beginning with one of the first two"
        raise ConfigError(f"--run-id, or run_dir's last part: got {run_id!r}, must be {allowed}")
    run_dir = run_dir.with_name(run_id)
    if run_dir.is_absolute():
        return run_dir
    if storage is None:
        raise ConfigError(
            f"run_dir: got {wanted!r}, which would lie in the job's copy of the working folder and end with "
            f"it: set {section}cluster.job.storage to an absolute folder that the nodes share"
        )
    return PurePosixPath(storage) / run_dir


def _texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the texts of a configuration, or of a part of it, with their dotted keys; without what a resumed
    run may change."""
    entries: Iterable[tuple[object, object]] = ()
    if isinstance(value, str):
        yield path, str(value)
    elif dataclasses.is_dataclass(value):
        lasting = (field.name for field in dataclasses.fields(value) if not field.metadata.get("may_change"))
        entries = ((name, getattr(value, name)) for name in lasting)
    elif isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, list | tuple):
        entries = enumerate(value)
    for key, inner in entries:
        yield from _texts(inner, f"{path}.{key}" if path else str(key))


def _inside_paths(text: str, working_dir: Path) -> tuple[str, ...]:
    """Returns the files and folders below `working_dir` that a value of the configuration stands for: a
    relative path, or the module of `package.module:name` with the packages that it lies in. The nodes have
    the modules of installed packages as they have rlcore itself."""
    if TARGET.fullmatch(text):
        if re.split("[.:]", text)[0] in metadata.packages_distributions():
            return ()
        parts = text.partition(":")[0].split(".")
        packages = [Path(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        paths = [
            path for path in (*packages, Path(*parts).with_suffix(".py")) if (working_dir / path).is_file()
        ]
        return tuple(path.as_posix() for path in paths)
    path = Path(os.path.normpath(text or "."))
    is_path = not path.is_absolute() and path.name not in ("", "..")
    return (path.as_posix(),) if is_path and os.path.exists(working_dir / path) else ()


def _inside(file: str, working_dir: Path) -> str:
    path = Path(file).resolve()
    if not path.is_relative_to(working_dir):
        raise ConfigError(
            f"--config {file}: lies outside of cluster.job.working_dir ({working_dir}), which is all that "
            "travels; move it there, or choose a folder above both"
        )
    return path.relative_to(working_dir).as_posix()
