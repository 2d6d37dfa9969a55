#!/bin/sh
# Stands in for the pager of the one on call: keeps what it is told, a line of JSON a message, in state/on-call.
set -eu
. "$(dirname "$0")/common.sh"
message=$(cat)
printf '%s\n' "$message" >>"$STATE/on-call"
