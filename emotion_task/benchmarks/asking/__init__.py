"""How models are asked a benchmark's questions, and what becomes of their answers."""
