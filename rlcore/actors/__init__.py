import os

# Read by Ray as it is imported. What died or hung is told by the pool that starts it anew.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", r" failed\. There are infinite retries remaining")
