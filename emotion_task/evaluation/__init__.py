"""Numbers of a set of answers, their intervals, and how they are shown."""
