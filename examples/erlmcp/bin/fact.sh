#!/bin/sh
# A stand-in for equipment, networks and clouds: each fact is a file that holds its value.
#   fact.sh set NAME=VALUE [NAME=VALUE...]   sets the first when all others hold, fails otherwise
#   fact.sh is NAME=VALUE...                 fails unless all hold
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?set or is}
shift
[ $# -gt 0 ] || die "which fact?"

holds() {
    plain "${1%%=*}"
    [ "$(get "fact/${1%%=*}")" = "${1#*=}" ] || die "${1%%=*} is $(get "fact/${1%%=*}"), not ${1#*=}"
}

case $verb in
set)
    goal=$1
    shift
    for condition in "$@"; do holds "$condition"; done
    plain "${goal%%=*}"
    put "fact/${goal%%=*}" "${goal#*=}"
    holds "$goal"
    echo "$goal"
    ;;
is)
    for condition in "$@"; do holds "$condition"; done
    echo "$*: holds"
    ;;
*) die "\"$verb\" is not set or is" ;;
esac
