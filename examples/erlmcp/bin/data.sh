#!/bin/sh
# A stand-in for databases and their backups, on real files with real checksums.
#   data.sh backup SET            copies the live files and notes their checksums
#   data.sh identify SET          chooses the newest backup whose checksums hold
#   data.sh restore SET           replaces the live files by the chosen backup's
#   data.sh apply SET             adds the transactions logged since the backup
#   data.sh verify SET [FILE...]  the live files are those that were restored, byte for byte
#   data.sh differ SET SITE       lists what a site's copy lacks
#   data.sh transfer SET SITE     copies it there
#   data.sh same SET SITE         fails unless the site's copy is the live one, byte for byte
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?backup, identify, restore, apply, verify, differ, transfer or same}
set=${2:?which data set?}
shift 2
plain "$set"
home=$STATE/data/$set
live=$home/live
[ -d "$live" ] || [ "$verb" = restore ] || die "$set has no live files: run setup.sh first"

sums() {
    (cd "$1" && find . -type f | sort | xargs -r sha256sum)
}

case $verb in
backup)
    number=$(find "$home/backups" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l)
    copy=$home/backups/$(printf '%06d' "$((number + 1))")
    mkdir -p "$copy"
    cp -R "$live/." "$copy/"
    sums "$copy" >"$copy.sha256"
    : >"$home/transactions"
    echo "$copy"
    ;;
identify)
    for sums_file in $(find "$home/backups" -name '*.sha256' | sort -r); do
        if (cd "${sums_file%.sha256}" && sha256sum --status -c "$sums_file"); then
            put "data/$set/chosen" "$(basename "${sums_file%.sha256}")"
            echo "chose $(get "data/$set/chosen")"
            exit 0
        fi
        echo "$sums_file does not hold" >&2
    done
    die "$set has no sound backup"
    ;;
restore)
    chosen=$(get "data/$set/chosen")
    [ -d "$home/backups/$chosen" ] || die "no backup of $set is chosen: identify one first"
    rm -rf "$live.new" && mkdir -p "$live.new"
    cp -R "$home/backups/$chosen/." "$live.new/"
    rm -rf "$live" && mv "$live.new" "$live"
    cp "$home/backups/$chosen.sha256" "$home/live.sha256"
    echo "restored $set from $chosen"
    ;;
apply)
    [ -f "$home/live.sha256" ] || die "$set was not restored: there is nothing to apply transactions to"
    cat "$home/transactions" >>"$live/logs"
    sums "$live" >"$home/live.sha256"
    echo "applied $(wc -l <"$home/transactions") transactions"
    ;;
verify)
    [ -f "$home/live.sha256" ] || die "$set was not restored: there is nothing to compare it with"
    [ $# -gt 0 ] || set -- $(cd "$live" && find . -type f)
    for file in "$@"; do
        grep -qxF "$(cd "$live" && sha256sum "./${file#./}")" "$home/live.sha256" || die "$file of $set differs"
    done
    echo "$*: as restored"
    ;;
differ | transfer | same)
    site=${1:?which site?}
    plain "$site"
    copy=$home/sites/$site
    mkdir -p "$copy"
    case $verb in
    differ) diff -rq "$live" "$copy" || true ;;
    transfer) cp -R "$live/." "$copy/" ;;
    same) diff -rq "$live" "$copy" || die "the copy of $set at $site is not the live one" ;;
    esac
    ;;
*) die "\"$verb\" is not backup, identify, restore, apply, verify, differ, transfer or same" ;;
esac
