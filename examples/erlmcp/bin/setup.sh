#!/bin/sh
# Brings the stand-ins to a healthy state: every component running, every data set with a backup, sites ready.
# Run it once before the first `rebound up`; running it again resets them.
set -eu
. "$(dirname "$0")/common.sh"
rm -rf "${STATE:?}"

# Components and what they need, in start order: as in plan.toml, which a test compares.
while read -r name needs; do
    put "needs/$name" "$needs"
    "$(dirname "$0")/component.sh" start "$name" >/dev/null
done <<END
node
core node
database node
authentication core
registry authentication
session-manager registry database
api-gateway authentication registry
tool-orchestration api-gateway session-manager
resource-manager registry database
monitoring core
dashboard monitoring api-gateway
developer-tools api-gateway tool-orchestration
analytics database
reporting analytics database
archives database
END

for set in postgres redis ets configuration; do
    mkdir -p "$STATE/data/$set/live"
    for file in tables indexes references logs; do
        echo "$set $file" >"$STATE/data/$set/live/$file"
    done
    "$(dirname "$0")/data.sh" backup "$set" >/dev/null
    echo "a transaction after the backup" >"$STATE/data/$set/transactions"
done

for fact in mains=on spare-equipment=ready cloud.account=ready cloud.quota=enough primary.hardware=sound \
    replica.state=in-sync secondary.link=up certificate.authority=reachable; do
    put "fact/${fact%%=*}" "${fact#*=}"
done
echo "ready in $STATE"
