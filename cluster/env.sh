# shellcheck shell=bash
# Environment of a Ray cluster on this machine alone. Source it in every terminal: `source cluster/env.sh`.

# Jobs run with the Python that the head was started with.
export PATH="$PWD/.venv/bin:$PATH"

# Only who holds the token (~/.ray/auth_token, or RAY_AUTH_TOKEN_PATH) may talk to the cluster.
export RAY_AUTH_MODE=token

# Ray's switch for "one machine only": every port is bound to 127.0.0.1. Leave it out on a real cluster.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0

export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
export RAY_JOB_STOP_WAIT_TIME_S=120
export OMP_NUM_THREADS=1
