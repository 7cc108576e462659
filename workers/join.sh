#!/usr/bin/env bash
# Joins this machine to a Ray cluster: join.sh HOST:PORT [arguments of `ray start`].
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: join.sh HOST:PORT [arguments of 'ray start']" >&2
  exit 2
fi
if [ "${RAY_AUTH_MODE:-}" != token ]; then
  echo "join.sh: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the head's token" >&2
  exit 2
fi
address=$1
shift
if ! timeout 5 bash -c ": < /dev/tcp/${address%:*}/${address##*:}" 2>/dev/null; then # `ray start` would wait for it
  echo "join.sh: nothing answers at $address; start the head first (head.sh), and let this node reach its port" >&2
  exit 1
fi
export RAY_USAGE_STATS_ENABLED=0
exec ray start --address="$address" "$@"
