"""Reasoning traces: from measured prosody and the transcript to `<think>...</think><answer>...</answer>`."""

from emotion_task.cot.template import TemplateWriter
from emotion_task.cot.writer import TraceWriter

__all__ = ["TemplateWriter", "TraceWriter"]
