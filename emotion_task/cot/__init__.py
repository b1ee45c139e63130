"""Writes reasoning traces (`<think>...</think><answer>...</answer>`) from measured prosody and the
transcript."""

from emotion_task.cot.template import TemplateWriter
from emotion_task.cot.writer import TraceWriter

__all__ = ["TemplateWriter", "TraceWriter"]
