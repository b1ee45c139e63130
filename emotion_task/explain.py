"""One recording: what the model says of it, beside what was measured. Knows no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from emotion_task.facts import PROSODY, stated_facts
from emotion_task.labels import EMOTIONS, LABELS_FILE, labels_beside
from emotion_task.prosody.calibrate import Calibration, apply_calibration
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.records.files import write_json


def explain(
    audio: str | Path,
    *,
    model_path: str,
    calibration: str | Path | None = None,
    labels: Sequence[str] | None = None,
    text: str | None = None,
    gender: str | None = None,
    max_new_tokens: int = 256,
) -> str:
    """Returns the model's greedy reasoning and label for one recording, beside its measured prosody.

    Args:
        calibration: cut points for the levels; by default the `calibration.json` beside the model. Without
            one the physical units are shown alone.
        text: transcript; levels of rate are calibrated on transcripts, so without one there is none.
        gender: `male` or `female`; levels of pitch are calibrated by gender, so without it there is none.
        labels: options of the question; by default those the model was trained with, else the paper's nine.

    Raises:
        DataError: unreadable audio or a missing model.
    """
    from emotion_task.prosody.annotation import with_measured
    from emotion_task.prosody.files import measure_file

    path = Path(audio).resolve()
    utterance = Utterance(id=path.stem, audio=str(path), text=text, gender=gender)
    measured, reason = measure_file(utterance)
    if measured is None:
        raise DataError(f"{path}: {reason}")
    utterance = with_measured(utterance, measured)
    if (cuts := calibration_of(model_path, calibration)) is not None:
        utterance = calibrated(cuts, utterance)
    options = labels or labels_beside(model_path) or EMOTIONS
    answer = _answer(model_path, path, options, max_new_tokens)
    return _render(answer, utterance)


def calibration_of(model_path: str, calibration: str | Path | None) -> Calibration | None:
    """Returns the cut points of a file, or else of the `calibration.json` beside a model, if any.

    Raises:
        DataError: the file is missing or no calibration.
    """
    beside = Path(model_path) / "calibration.json"
    if calibration is None and beside.is_file():
        calibration = beside
    return None if calibration is None else Calibration.load(calibration)


def calibrated(cuts: Calibration, utterance: Utterance) -> Utterance:
    """Returns a stranger's measured recording with its levels. Where the cut points are of one corpus, the
    model's training corpus, the recording is judged by that: the only scale there is."""
    corpora = {group.split("/")[0] for groups in cuts.cuts.values() for group in groups}
    if len(corpora) == 1:
        utterance = replace(utterance, dataset=corpora.pop())
    return apply_calibration(cuts, utterance)


def _answer(model_path: str, audio: Path, labels: Sequence[str], max_new_tokens: int) -> str:
    import torch

    from emotion_task.audio_window import model_waveform
    from emotion_task.prompt import emotion_messages
    from rlcore.models.chat_template import format_prompt
    from rlcore.models.device import own_device
    from rlcore.models.hf_model import load_model, load_processor, tokenizer_of
    from rlcore.models.tokens import answer_text, opened_tag, special_tokens_argument

    processor = load_processor(model_path)
    device = own_device()
    model = load_model(model_path, dtype="bfloat16" if device == "cuda" else "float32", device=device)
    extractor = processor.feature_extractor
    prompt = format_prompt(processor, emotion_messages(labels))
    inputs = processor(
        text=prompt,
        audio=[model_waveform(audio, extractor)],
        sampling_rate=extractor.sampling_rate,
        return_tensors="pt",
        **special_tokens_argument(tokenizer_of(processor), prompt),
    )
    inputs = inputs.to(device, model.dtype)  # of features; tokens stay whole numbers
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    completion = tokens[0, inputs["input_ids"].shape[1] :]
    answer = answer_text(tokenizer_of(processor), completion.tolist())
    return opened_tag(prompt, answer) + answer


def _render(answer: str, utterance: Utterance) -> str:
    from emotion_task.claims.finder import find_claims
    from emotion_task.parsing import parse_response

    parsed = parse_response(answer)
    claims = find_claims(parsed.think if parsed else answer)
    lines = [
        f"reasoning  {parsed.think if parsed else answer}",
        f"label      {parsed.answer if parsed else '(no answer in the schema)'}",
        "",
        f"{'':11}{'said':<18}{'measured':<18}",
    ]
    facts = stated_facts(utterance)
    for name in PROSODY:
        said, measured = claims.get(name, "-"), facts.get(name, "-")
        verdict = "" if "-" in (said, measured) else "agrees" if said == measured else "differs"
        lines.append(f"{name.removesuffix('_level'):<11}{said:<18}{measured:<18}{verdict}")
    lines += ["", *_units(utterance.measured or {})]
    return "\n".join(line.rstrip() for line in lines)


def _units(measured: Mapping[str, object]) -> list[str]:
    """Returns the measurement in physical units, a line each."""
    return [
        f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}"
        for name, value in measured.items()
    ]


def write_companions(model: str | Path, calibration: str | Path, labels: Sequence[str]) -> None:
    """Writes the cut points and options beside a trained model, so that `explain` needs nothing else."""
    folder = Path(model)
    write_json(folder / LABELS_FILE, list(labels))
    (folder / "calibration.json").write_text(Path(calibration).read_text(encoding="utf-8"), encoding="utf-8")
