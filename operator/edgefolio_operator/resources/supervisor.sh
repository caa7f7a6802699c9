#!/bin/sh
# Supervisor of the agent: restarts it inside its container, after a pause that doubles up to 32 seconds.
#
# A pod is not ready while a sidecar is down, and clients would lose a Triton that serves. Before its first sync an
# agent serves nobody: then the kubelet shall see it end. @SYNCED@ is the health file that tells the two apart. Comments
# stay out of the pod: a new word here restarts no Triton.
# shellcheck disable=SC1007
agent= pause=1
trap '[ -z "$agent" ] || kill -TERM "$agent"; wait; exit 0' TERM INT
while :; do
  began=$(date +%s)
  python3 -m edgefolio_edge.cluster & agent=$!
  wait "$agent"; code=$?
  [ -e @SYNCED@ ] || exit "$code"
  [ $(($(date +%s) - began)) -lt 60 ] || pause=1
  echo "{\"event\": \"ended\", \"message\": \"The agent ended with $code; again in $pause s.\"}"
  sleep "$pause" & agent=$!
  wait "$agent"
  [ "$pause" -ge 30 ] || pause=$((2 * pause))
done
