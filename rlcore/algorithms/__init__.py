"""The mathematics of policy optimisation: pure functions of arrays and tensors.

Nothing here knows of Ray, an engine or the configuration; every function can be called from a shell.
Dimension letters: G groups (prompts), K samples of a group, B sequences, T completion tokens.
"""
