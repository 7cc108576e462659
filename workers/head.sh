#!/usr/bin/env bash
# Starts the head node of a Ray cluster on this machine. Arguments go to `ray start`.
set -euo pipefail
if [ "${RAY_AUTH_MODE:-}" != token ]; then
  echo "head.sh: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) first:" >&2
  echo "         without a token anyone who reaches this machine's ports can run code on it" >&2
  exit 2
fi
export RAY_USAGE_STATS_ENABLED=0
exec ray start --head --port="${RAY_PORT:-6379}" "$@"
