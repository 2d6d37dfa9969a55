#!/bin/sh
# A stand-in for a name server: one zone file, whose serial number grows with every change.
#   zone.sh create               makes the zone
#   zone.sh set NAME ADDRESS     changes a record
#   zone.sh is NAME ADDRESS      fails unless the zone is sound and says so
#   zone.sh corrupt              cuts the zone off
#   zone.sh restore              takes the last sound one back
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?create, set, is, corrupt or restore}
zone=$STATE/zone/erlmcp.zone
mkdir -p "$STATE/zone"

sound() {
    grep -q '^@ IN SOA ' "$zone" && grep -qx '; end' "$zone" || die "the zone is not whole"
}

case $verb in
create)
    printf '@ IN SOA ns.erlmcp.internal. root.erlmcp.internal. 1 3600 600 86400 60\napi IN A 127.0.0.1\nerlmcp IN A 127.0.0.1\n; end\n' >"$zone"
    cp "$zone" "$zone.sound"
    ;;
set)
    plain "${2:?which name?}"
    plain "${3:?which address?}"
    sound
    cp "$zone" "$zone.sound"
    awk -v name="$2" -v address="$3" '
        $3 == "SOA" { $6 = $6 + 1 }
        $1 == name { next }
        $0 == "; end" { print name, "IN A", address }
        { print }' "$zone" >"$zone.new"
    mv "$zone.new" "$zone"
    grep -x "$2 IN A $3" "$zone"
    ;;
is)
    sound
    grep -qx "${2:?which name?} IN A ${3:?which address?}" "$zone" || die "$2 is $(awk -v name="$2" '$1 == name { print $4 }' "$zone"), not $3"
    awk '$3 == "SOA" { print "serial " $6 }' "$zone"
    ;;
corrupt) printf '@ IN SO' >"$zone" ;;
restore)
    cp "$zone.sound" "$zone"
    sound
    ;;
*) die "\"$verb\" is not create, set, is, corrupt or restore" ;;
esac
