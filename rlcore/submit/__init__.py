"""`rlcore submit`: a run as a job of a Ray cluster. What is wrong is said before it starts."""
