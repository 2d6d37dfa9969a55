#!/bin/sh
# A stand-in for the service manager: components are real processes, whose ids are kept in files. One ends by itself
# when its file is gone, so removing the state leaves nothing behind.
#   component.sh start|stop NAME...     start fails when something that NAME needs isn't running
#   component.sh check NAME...          0 when all are running, 2 otherwise: what the probes call
#   component.sh needs NAME             0 when all that NAME needs is running
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?start, stop, check or needs}
shift
[ $# -gt 0 ] || die "which component?"

running() {
    pid=$(get "component/$1.pid")
    [ -n "$pid" ] && [ "$pid" != unknown ] && kill -0 "$pid" 2>/dev/null
}

state_of() {
    if running "$1"; then echo running; else echo stopped; fi
}

launch() {
    mkdir -p "$STATE/component"
    # shellcheck disable=SC2016
    setsid sh -c 'echo $$ >"$1"; while [ "$(cat "$1" 2>/dev/null)" = $$ ]; do sleep 1; done' \
        "$1" "$STATE/component/$1.pid" </dev/null >/dev/null 2>&1 &
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        running "$1" && return
        sleep 0.2
    done
    die "$1 did not start"
}

halt() {
    pid=$(get "component/$1.pid")
    rm -f "$STATE/component/$1.pid"
    [ "$pid" = unknown ] || kill -9 "$pid" 2>/dev/null || true
}

needs_of() {
    [ -f "$STATE/needs/$1" ] || die "$1 is not a component: run setup.sh first"
    for need in $(cat "$STATE/needs/$1"); do
        running "$need" || die "$1 needs $need, which is $(state_of "$need")"
    done
}

for name in "$@"; do
    plain "$name"
    case $verb in
    start)
        needs_of "$name"
        [ "$(get "isolated/$name")" != yes ] || die "$name is isolated"
        running "$name" || launch "$name"
        ;;
    stop) halt "$name" ;;
    check) running "$name" || die "$name is $(state_of "$name")" ;;
    needs) needs_of "$name" ;;
    *) die "\"$verb\" is not start, stop, check or needs" ;;
    esac
    echo "$verb $name: done"
done
