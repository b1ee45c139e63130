"""The task's part of a run's page (`rlcore report`): how a voice was, and what an answer says of it."""
