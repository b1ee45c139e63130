"""Configurations as people break them: each is read, or refused in a sentence that names the key or file."""

from __future__ import annotations

import copy
import datetime
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import places

from emotion_task.config import CorpusConfig, PipelineConfig, SFTConfig
from rlcore.config import (
    AlgorithmConfig,
    JobConfig,
    LearnerConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    load_config,
    to_yaml,
)
from rlcore.config.io import keys
from rlcore.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "emotion_task" / "configs"


def section(name: str, *path: str) -> str:
    """Returns a section of a configuration as a file of its own, which is read in a tenth of the time."""
    tree = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    for key in path:
        tree = tree[key]
    return yaml.safe_dump(tree, sort_keys=False)


SOURCES: tuple[tuple[type, str], ...] = (
    (PipelineConfig, (CONFIGS / "small.yaml").read_text(encoding="utf-8")),
    (RunConfig, (CONFIGS / "omni" / "base.yaml").read_text(encoding="utf-8") + "\nseed: 3\n"),
    (RewardConfig, section("quickstart.yaml", "rl", "rewards", "reasoning")),
    (LearnerConfig, section("quickstart.yaml", "rl", "learner")),
    (RolloutConfig, section("quickstart.yaml", "rl", "rollout")),
    (AlgorithmConfig, section("quickstart.yaml", "rl", "algorithm") + "clip_low: ${kl_coef}\n"),
    (SFTConfig, section("quickstart.yaml", "sft")),
    (CorpusConfig, section("quickstart.yaml", "corpus")),
    (
        JobConfig,
        "pip: [a]\nenv_vars: &vars {A: '1', B: '${oc.env:FUZZ}'}\nmetadata: {<<: *vars}\nstorage: /data\n",
    ),
)
"""Schemas, and the texts that are broken."""

SCALARS = (
    *(None, True, False, 0, -1, 1, 3, 0.5, 1e308, 10**400, float("inf"), float("nan")),
    *(
        "",
        "x",
        "on",
        "null",
        "~",
        "???",
        "1e5",
        "0x1F",
        "1_000",
        "12:30:45",
        "a: b",
        "*a",
        "\t",
        "\x00",
        "\u2028",
    ),
    *(
        "${",
        "${x",
        "$",
        "${}",
        "${run_dir}",
        "${seed}",
        "${nowhere}",
        "${rl}",
        "${..x}",
        "${.}",
        "\\${run_dir}",
    ),
    *("${oc.env:FUZZ}", "${oc.env:NOT_SET}", "${oc.env:NOT_SET,7}", "${oc.env}", "${oc.env:FUZZ}${"),
    *("${oc.create:{a:1}}", "${oc.decode:'['}", "${no.such:1}", "${run_dir}/${", "a ${run_dir} b"),
    *(datetime.date(2024, 1, 1), b"bytes"),
)
values = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.one_of(st.sampled_from(("a", "b.c", "", "x[0]", "${seed}", None, True, 1, 0.5))),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=3,
)
PIECES = (
    *(
        "\t",
        "\x00",
        "{",
        "}",
        "[",
        "]",
        "'",
        '"',
        ": ",
        "#",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!python/name:os.system ",
    ),
    *(
        "%",
        "---\n",
        "...\n",
        "\u2028",
        "\ufeff",
        "\r",
        "\r\n",
        "? ",
        "- ",
        "| ",
        "> ",
        "${",
        "}",
        ",",
        "!!set ",
        "\n",
    ),
    *("!!int ", "!x ", "@", "`", "\x85", "\x1b", "\xff"),
)


@st.composite
def broken_trees(draw: st.DrawFn, text: str) -> bytes:
    """Draws the file with entries that are dropped, replaced, or stand elsewhere."""
    tree = yaml.safe_load(text)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        *to_parent, name = draw(st.sampled_from(found))
        parent: Any = tree
        for step in to_parent:
            parent = parent[step]
        match draw(st.sampled_from(("drop", "replace", "replace", "add", "rename", "copy"))):
            case "drop":
                del parent[name]
            case "replace":
                parent[name] = draw(values)
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(("a", "path", "run_dir", "", None, 7, "a.b")))] = draw(values)
            case "rename" if isinstance(parent, dict):
                parent[f"{name}{draw(st.sampled_from(('s', '.', '[0]', ' ', '-')))}"] = parent.pop(name)
            case "copy":
                copied = copy.deepcopy(parent[name])
                if isinstance(tree, dict):
                    tree[draw(st.sampled_from((*tree, "more")))] = copied
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()


@st.composite
def broken_texts(draw: st.DrawFn, text: str) -> bytes:
    """Draws the file with pieces that are put in, cut out or doubled, in UTF-8 or not."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(("insert", "insert", "cut", "end", "double"))):
            case "insert":
                text = text[:start] + draw(st.sampled_from(PIECES)) + text[start:]
            case "cut":
                text = text[:start] + text[start + draw(st.integers(1, 40)) :]
            case "end":
                text = text[:start]
            case "double":
                lines = text.splitlines(keepends=True)
                at = draw(st.integers(0, max(0, len(lines) - 1)))
                text = "".join(lines[: at + 1] + lines[at:])
    encoding = draw(
        st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32-le"))
    )
    return text.encode(encoding, errors="replace")


@st.composite
def overrides(draw: st.DrawFn, schema: type) -> str:
    """Draws a `key=value` of the command line, of which much may be wrong."""
    key = draw(st.sampled_from(keys(schema))).replace("*", "format")
    match draw(st.sampled_from(("as it is", "as it is", "as it is", "section", "odd"))):
        case "section":
            key = key.rpartition(".")[0] or key
        case "odd":
            key += draw(
                st.sampled_from((".a", "[0]", ".", "..", " ", "[", "]", "=", ".a.b", "\x00", ".null", "s"))
            )
    value = draw(
        st.one_of(
            values.map(
                lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
            ),
            st.sampled_from(PIECES + tuple(map(str, SCALARS))),
            st.text(max_size=6),
        )
    )
    return draw(
        st.sampled_from(
            (f"{key}={value}",) * 8 + (key, f"{key}:{value}", value, f"={value}", f" {key} = {value}")
        )
    )


JARGON = re.compile(
    "omegaconf|DictConfig|ListConfig|AnyNode|NoneType|full_key|object_type|Traceback|dataclass|<class|Union|Optional"
    "|raised while|could not be converted|Cannot|Incompatible|Unexpected type|Invalid type|is not a"
)


def check(files: list[Path], over: list[str], schema: type) -> None:
    try:
        config = load_config(files, over, schema)
    except ConfigError as error:
        message = str(error)
        named = message.startswith((*map(str, files), "override ")) or message.split(".")[0].split(":")[
            0
        ].split(",")[0] in {key.split(".")[0] for key in keys(schema)}
        assert named, message
        assert "\n" not in message and not JARGON.search(message.replace(str(files[0]), "")), message
        return
    # What was read is what is saved.
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "config.yaml"
        saved.write_text(to_yaml(config), encoding="utf-8")
        assert to_yaml(load_config([saved], [], schema)) == to_yaml(config)


@given(st.data())
@settings(max_examples=500)
def test_a_broken_configuration_is_read_or_refused_in_a_sentence(data: st.DataObject) -> None:
    schema, text = data.draw(st.sampled_from(SOURCES[:2] + 3 * SOURCES[2:]))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv(
            "FUZZ", data.draw(st.sampled_from(("", "7", "a: b", "${run_dir}", "\udc80", "[", "null")))
        )
        patch.delenv("NOT_SET", raising=False)
        file, over = Path(folder) / "broken.yaml", []
        file.write_text(text, encoding="utf-8")
        how = data.draw(st.sampled_from(("tree", "tree", "text", "override", "override")))
        if how == "override":
            over = data.draw(st.lists(overrides(schema), min_size=1, max_size=2))
        else:
            file.write_bytes(data.draw(broken_trees(text) if how == "tree" else broken_texts(text)))
        check([file], over, schema)
