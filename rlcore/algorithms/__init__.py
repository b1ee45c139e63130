"""The mathematics of policy optimisation: pure functions of arrays and tensors.

Nothing here knows of Ray, an engine or the configuration; every function can be called from a shell. Each
kind of choice is a dictionary from names to functions of one signature: `ADVANTAGES`, `SURROGATES`,
`CORRECTIONS`, `KL_ESTIMATORS`, `AGGREGATIONS` and `LR_SCHEDULES`. The configuration reads the allowed names
from them. Dimension letters: G groups (prompts), K samples of a group, B sequences, T completion tokens.
"""
