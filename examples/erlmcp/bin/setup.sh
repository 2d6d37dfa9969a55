#!/bin/sh
# Brings the stand-ins to a healthy state: every component running, every data set with a backup, sites ready.
# Run it once before the first `rebound up`; running it again resets them.
set -eu
. "$(dirname "$0")/common.sh"
rm -rf "${STATE:?}"
bin=$(dirname "$0")

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

for set in redis ets configuration; do
    mkdir -p "$STATE/data/$set/live"
    for file in tables indexes references logs; do
        echo "$set $file" >"$STATE/data/$set/live/$file"
    done
    "$(dirname "$0")/data.sh" backup "$set" >/dev/null
done

# The database: three transactions, a backup, and two that only the archive has.
mkdir -p "$STATE/data/postgres/live"
command -v sqlite3 >/dev/null || die "sqlite3 is not installed: it stands in for PostgreSQL"
sqlite3 "$STATE/data/postgres/live/database" <<END
CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, balance INTEGER NOT NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES accounts (id), token TEXT NOT NULL);
CREATE INDEX session_of ON sessions (account);
CREATE TABLE log (number INTEGER PRIMARY KEY);
INSERT INTO accounts VALUES (1, 'ann', 100), (2, 'bob', 50);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO sessions SELECT i, 1 + i % 2, 'token-' || i FROM n;
INSERT INTO log VALUES (1), (2), (3);
END
put data/postgres/applied 3
"$bin/data.sh" backup postgres >/dev/null
cat >"$STATE/data/postgres/transactions" <<END
4 INSERT INTO accounts VALUES (3, 'cem', 75);
5 UPDATE accounts SET balance = balance + 25 WHERE id = 1;
END
"$bin/data.sh" identify postgres >/dev/null
"$bin/data.sh" restore postgres >/dev/null
"$bin/data.sh" apply postgres >/dev/null

"$bin/certificate.sh" authority >/dev/null
"$bin/certificate.sh" request >/dev/null
"$bin/certificate.sh" install >/dev/null
"$bin/zone.sh" create >/dev/null

for fact in mains=on spare-equipment=ready cloud.account=ready cloud.quota=enough primary.hardware=sound \
    replica.state=in-sync secondary.link=up certificate.authority=reachable backups.encrypted=yes; do
    put "fact/${fact%%=*}" "${fact#*=}"
done
echo "ready in $STATE"
