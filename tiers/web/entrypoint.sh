#!/bin/sh
# Tells nginx where the application servers are, and becomes nginx.
set -eu
for server in ${APP_SERVERS:-app:8000}; do
    printf 'server %s max_fails=2 fail_timeout=2s;\n' "$server"
done >/etc/nginx/app-servers.conf
exec nginx -g 'daemon off;' "$@"
