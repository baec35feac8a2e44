#!/bin/sh
# Tells nginx where the application servers are, and becomes nginx. The name of a server may have several addresses,
# one for each instance; as they come and go nginx is told again, which looks names up only when it reads its
# configuration.
set -eu
list=/etc/nginx/app-servers.conf

# A line for each address of each server. It is asked for every second, so that it starts few programs.
servers() {
    for server in ${APP_SERVERS:-app:8000}; do
        getent ahostsv4 "${server%:*}" | while read -r address kind _; do
            [ "$kind" != STREAM ] || echo "server $address:${server##*:} max_fails=1 fail_timeout=2s;"
        done
    done | sort -u
}

watch() {
    while sleep 1; do
        found=$(servers)
        # Where nobody is left the last ones stay: nginx takes no empty list, and they may come back.
        case $found in
        "" | "$known") continue ;;
        esac
        known=$found
        echo "$known" >"$list.new"
        mv "$list.new" "$list"
        nginx -s reload
    done
}

tries=0
until known=$(servers) && [ -n "$known" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "no address of ${APP_SERVERS:-app:8000}" >&2 && exit 1; }
    sleep 0.1
done
echo "$known" >"$list"
# PID 1 is nginx, and with it the instance ends, this loop too.
watch &
exec nginx -g 'daemon off;' "$@"
