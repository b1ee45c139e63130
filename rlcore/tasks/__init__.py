"""Ready tasks, for the configuration's `task`: `rlcore.tasks:Rows` asks what the rows of a file say."""

from rlcore.tasks.rows import Rows as Rows
