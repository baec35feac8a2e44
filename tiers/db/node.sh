#!/bin/sh
# A part of two databases of which one writes and the other follows (pg_auto_failover): becomes pg_autoctl.
#   database-node              PostgreSQL, as whatever the monitor says; it is told NODE, its own name
#   database-node --monitor    the monitor
# PGPASSWORD is the nodes' password, which libpq reads itself, in all of its clients.
set -eu
# Of a run that was killed: their process ids may be anybody's now, and nobody else uses this instance's volume.
rm -rf /tmp/pg_autoctl "$PGDATA/postmaster.pid"
# pg_autoctl has PostgreSQL write there; it is emptied at each start.
tail -n 0 -F "$PGDATA/startup.log" >&2 2>/dev/null &
[ "${1-}" != --monitor ] || exec pg_autoctl run
# What is there already goes on; pg_hba.conf is the image's.
exec pg_autoctl create postgres --run --name "${NODE:?}" --hostname "$NODE" --dbname shop --skip-pg-hba --no-ssl \
    --monitor "postgres://autoctl_node@${MONITOR:-db-monitor}/pg_auto_failover"
