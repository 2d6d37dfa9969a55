# Sourced by the stand-ins: where their state is, and how they fail. Programs run with a cleared environment,
# so REBOUND_STATE (an absolute path) is for a step's `env`; without it the state is beside bin/.
PATH=/usr/local/bin:/usr/bin:/bin
export PATH LC_ALL=C
STATE=${REBOUND_STATE:-$(cd "$(dirname "$0")/.." && pwd)/state}

die() {
    echo "$*" >&2
    exit 2
}

# Writes a value so that a reader sees the old or the new one, never half of it.
put() {
    mkdir -p "$(dirname "$STATE/$1")" && printf '%s\n' "$2" >"$STATE/$1.new.$$" && mv "$STATE/$1.new.$$" "$STATE/$1"
}

get() {
    cat "$STATE/$1" 2>/dev/null || echo unknown
}

# A name becomes part of a path: nothing but plain characters.
plain() {
    case $1 in
    '' | *[!a-zA-Z0-9._-]* | .*) die "\"$1\" is not a name" ;;
    esac
}
