#!/bin/sh
# A stand-in for a certificate authority and the place where certificates are installed: real keys, real chains.
#   certificate.sh authority       makes the authority
#   certificate.sh request [DAYS]  has a new certificate issued
#   certificate.sh install         puts it in place, if the authority stands behind it and its key fits
#   certificate.sh verify          fails unless the installed one is trusted, has its key and lasts another week
#   certificate.sh expire          puts one in place that ends too soon
set -eu
. "$(dirname "$0")/common.sh"
verb=${1:?authority, request, install, verify or expire}
home=$STATE/certificates
mkdir -p "$home/new" "$home/live"
command -v openssl >/dev/null || die "openssl is not installed"

issue() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$home/new/key.pem" -out "$home/new/request.pem" \
        -subj /CN=api.erlmcp.internal 2>/dev/null
    openssl x509 -req -in "$home/new/request.pem" -CA "$home/authority.pem" -CAkey "$home/authority.key" \
        -days "$1" -out "$home/new/certificate.pem" 2>/dev/null
}

sound() {
    openssl verify -CAfile "$home/authority.pem" "$1/certificate.pem" >/dev/null 2>&1 || die "nobody stands behind it"
    [ "$(openssl x509 -in "$1/certificate.pem" -noout -pubkey)" = "$(openssl pkey -in "$1/key.pem" -pubout)" ] ||
        die "the key is another certificate's"
}

case $verb in
authority)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$home/authority.key" \
        -out "$home/authority.pem" -days 3650 -subj /CN=erlmcp-authority 2>/dev/null
    ;;
request)
    [ "$(get fact/certificate.authority)" != unreachable ] || die "the authority is unreachable"
    issue "${2:-90}"
    ;;
install)
    sound "$home/new"
    cp "$home/new/key.pem" "$home/new/certificate.pem" "$home/live/"
    ;;
verify)
    sound "$home/live"
    openssl x509 -in "$home/live/certificate.pem" -noout -checkend 604800 >/dev/null || die "it ends within a week"
    ;;
expire)
    issue 1
    cp "$home/new/key.pem" "$home/new/certificate.pem" "$home/live/"
    rm -f "$home"/new/*
    ;;
*) die "\"$verb\" is not authority, request, install, verify or expire" ;;
esac
[ ! -f "$home/live/certificate.pem" ] || openssl x509 -in "$home/live/certificate.pem" -noout -enddate -serial
