#!/bin/sh
# A stand-in for the service manager: components are files that say "running" or "stopped".
#   component.sh start|stop NAME...     start fails when something that NAME needs isn't running
#   component.sh check NAME...          0 when all are running, 2 otherwise: what the probes call
#   component.sh needs NAME             0 when all that NAME needs is running
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?start, stop, check or needs}
shift
[ $# -gt 0 ] || die "which component?"

running() {
    [ "$(get "component/$1")" = running ]
}

needs_of() {
    [ -f "$STATE/needs/$1" ] || die "$1 is not a component: run setup.sh first"
    for need in $(cat "$STATE/needs/$1"); do
        running "$need" || die "$1 needs $need, which is $(get "component/$need")"
    done
}

for name in "$@"; do
    plain "$name"
    case $verb in
    start)
        needs_of "$name"
        [ "$(get "isolated/$name")" != yes ] || die "$name is isolated"
        put "component/$name" running
        ;;
    stop) put "component/$name" stopped ;;
    check) running "$name" || die "$name is $(get "component/$name")" ;;
    needs) needs_of "$name" ;;
    *) die "\"$verb\" is not start, stop, check or needs" ;;
    esac
    echo "$verb $name: done"
done
