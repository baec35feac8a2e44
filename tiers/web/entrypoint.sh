#!/bin/sh
# Tells nginx where the application servers are, and becomes nginx. The name of a server may have several addresses,
# one for each instance; as they come and go nginx is told again, which looks names up only when it reads its
# configuration.
set -eu
list=/etc/nginx/app-servers.conf

# A line for each address of each server; fails if there is none.
servers() {
    for server in ${APP_SERVERS:-app:8000}; do
        getent ahostsv4 "${server%:*}" | awk -v port="${server##*:}" '
            $2 == "STREAM" { print "server " $1 ":" port " max_fails=1 fail_timeout=2s;" }'
    done | sort -u | grep .
}

watch() {
    while sleep 1; do
        # Where nobody is left the last ones stay: nginx takes no empty list, and they may come back.
        servers >"$list.new" || continue
        cmp -s "$list" "$list.new" && continue
        mv "$list.new" "$list"
        nginx -s reload
    done
}

tries=0
until servers >"$list"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "no address of ${APP_SERVERS:-app:8000}" >&2 && exit 1; }
    sleep 0.1
done
# PID 1 is nginx, and with it the instance ends, this loop too.
watch &
exec nginx -g 'daemon off;' "$@"
