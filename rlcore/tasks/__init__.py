"""Ready tasks, for the configuration's `task`: `rlcore.tasks:Rows` asks what the rows of a file say, and
`rlcore.tasks:Preferences` knows which answers to them are preferred."""

from rlcore.tasks.preferences import Preferences as Preferences
from rlcore.tasks.rows import Rows as Rows
