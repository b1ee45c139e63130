"""A reward for saying it in few words."""

from rlcore.rewards import Reward, Score


class Brevity(Reward):
    """1 up to `limit` words, falling to 0 at twice as many."""

    def __init__(self, limit: int = 120):
        self.limit = limit

    def score(self, group, context):
        counts = [len(completion.text.split()) for completion in group.completions]
        return [Score(min(1.0, max(0.0, 2 - n / self.limit)), parts={"words": n}) for n in counts]
