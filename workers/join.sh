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
export RAY_USAGE_STATS_ENABLED=0
exec ray start --address="$address" "$@"
