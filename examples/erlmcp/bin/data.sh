#!/bin/sh
# A stand-in for databases and their backups, on real files with real checksums.
#   data.sh backup SET            copies the live files and notes their checksums
#   data.sh identify SET          chooses the newest backup whose checksums hold
#   data.sh restore SET           replaces the live files by the chosen backup's
#   data.sh apply SET [UNTIL]     adds the transactions logged since the backup, up to number UNTIL
#   data.sh verify SET [PART...]  tables, indexes, references and logs of a database; else files, byte for byte as restored
#   data.sh corrupt SET           overwrites the middle of the live files
#   data.sh query SQL             asks the live database
#   data.sh differ SET SITE       lists what a site's copy lacks
#   data.sh transfer SET SITE     copies it there
#   data.sh same SET SITE         fails unless the site's copy is the live one, byte for byte
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?backup, identify, restore, apply, verify, differ, transfer or same}
set=${2:?which data set, or which SQL?}
shift 2
[ "$verb" != query ] || { exec sqlite3 -readonly "$STATE/data/postgres/live/database" "$set"; }
plain "$set"
home=$STATE/data/$set
live=$home/live
[ -d "$live" ] || [ "$verb" = restore ] || die "$set has no live files: run setup.sh first"

sums() {
    (cd "$1" && find . -type f | sort | xargs -r sha256sum)
}

# The one set that is a database: SQLite stands in for PostgreSQL.
database=$live/database
sql() {
    command -v sqlite3 >/dev/null || die "sqlite3 is not installed"
    sqlite3 -bail -cmd ".timeout 5000" -cmd "PRAGMA foreign_keys = on" "$database" "$1"
}

# What a part of the database must be like; anything printed is a fault.
faults() {
    case $1 in
    tables)
        sql "PRAGMA integrity_check" | grep -vx ok || true
        [ "$(sql "SELECT count(*) FROM sqlite_master WHERE name IN ('accounts', 'sessions')")" = 2 ] || echo "a table is missing"
        ;;
    indexes)
        [ "$(sql "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = 'session_of'")" = 1 ] || echo "session_of is missing"
        sql "PRAGMA integrity_check" | grep -i index || true
        ;;
    references) sql "PRAGMA foreign_key_check" ;;
    logs)
        wanted=$(get "data/$set/applied")
        found=$(sql "SELECT coalesce(max(number), 0) FROM log")
        [ "$found" = "$wanted" ] || echo "the log ends at $found, not at $wanted"
        ;;
    *) echo "is not tables, indexes, references or logs" ;;
    esac
}

case $verb in
backup)
    number=$(find "$home/backups" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l)
    copy=$home/backups/$(printf '%06d' "$((number + 1))")
    mkdir -p "$copy"
    cp -R "$live/." "$copy/"
    sums "$copy" >"$copy.sha256"
    echo "$copy"
    ;;
identify)
    for sums_file in $(find "$home/backups" -name '*.sha256' | sort -r); do
        if (cd "${sums_file%.sha256}" && sha256sum --status -c "$sums_file"); then
            put "data/$set/chosen" "$(basename "${sums_file%.sha256}")"
            get "data/$set/chosen"
            exit 0
        fi
    done
    die "$set has no sound backup"
    ;;
restore)
    chosen=${1:-$(get "data/$set/chosen")}
    plain "$chosen"
    [ -d "$home/backups/$chosen" ] || die "no backup of $set is chosen: identify one first"
    rm -rf "$live.new" && mkdir -p "$live.new"
    cp -R "$home/backups/$chosen/." "$live.new/"
    rm -rf "$live" && mv "$live.new" "$live"
    cp "$home/backups/$chosen.sha256" "$home/live.sha256"
    [ ! -f "$database" ] || put "data/$set/applied" "$(sql "SELECT coalesce(max(number), 0) FROM log")"
    echo "restored $set from $chosen"
    ;;
apply)
    [ -f "$home/live.sha256" ] || die "$set was not restored: there is nothing to apply transactions to"
    until=${1:-999999}
    [ "$until" -ge 0 ] 2>/dev/null || die "\"$until\" is not the number of a transaction"
    since=$(get "data/$set/applied")
    # Each line: its number, and what it did. All of them or none.
    {
        echo "BEGIN;"
        while read -r number statement; do
            [ "$number" -gt "$since" ] && [ "$number" -le "$until" ] || continue
            echo "$statement"
            echo "INSERT INTO log VALUES ($number);"
        done <"$home/transactions"
        echo "COMMIT;"
    } | sqlite3 -bail -cmd ".timeout 5000" "$database"
    put "data/$set/applied" "$(sql "SELECT coalesce(max(number), 0) FROM log")"
    sums "$live" >"$home/live.sha256"
    echo "applied transactions $((since + 1)) to $(get "data/$set/applied")"
    ;;
verify)
    [ -f "$home/live.sha256" ] || die "$set was not restored: there is nothing to compare it with"
    if [ -f "$database" ]; then
        [ $# -gt 0 ] || set -- tables indexes references logs
        for part in "$@"; do
            found=$(faults "$part" 2>&1) || found="$part can't be read: $found"
            [ -z "$found" ] || die "$part of $set: $found"
        done
        echo "$*: sound"
        exit 0
    fi
    [ $# -gt 0 ] || set -- $(cd "$live" && find . -type f)
    for file in "$@"; do
        grep -qxF "$(cd "$live" && sha256sum "./${file#./}")" "$home/live.sha256" || die "$file of $set differs"
    done
    echo "$*: as restored"
    ;;
corrupt)
    for file in "$live"/*; do
        size=$(wc -c <"$file")
        printf 'corrupted by a fault' | dd of="$file" bs=1 seek="$((size / 2))" conv=notrunc 2>/dev/null
        # A database page that is not one.
        [ "$size" -lt 8192 ] || dd if=/dev/urandom of="$file" bs=1024 seek=4 count=4 conv=notrunc 2>/dev/null
    done
    echo "corrupted $set"
    ;;
differ | transfer | same)
    site=${1:?which site?}
    plain "$site"
    copy=$home/sites/$site
    mkdir -p "$copy"
    case $verb in
    differ) diff -rq "$live" "$copy" || true ;;
    transfer)
        cp -R "$live/." "$copy/"
        [ "$(sums "$copy")" = "$(sums "$live")" ] || die "the copy of $set at $site has other checksums"
        ;;
    same) diff -rq "$live" "$copy" || die "the copy of $set at $site is not the live one" ;;
    esac
    ;;
*) die "\"$verb\" is not backup, identify, restore, apply, verify, corrupt, query, differ, transfer or same" ;;
esac
