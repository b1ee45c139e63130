"""A run as a job of a Ray cluster (`rlcore submit`). What is wrong is said before the job starts."""
