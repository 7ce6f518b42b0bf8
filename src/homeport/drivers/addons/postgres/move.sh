#!/bin/sh
# Moves what one cluster holds into a new one by dumping and restoring it: move.sh OLD_BIN OLD_DATA NEW_BIN NEW_DATA SOCKETS ADMIN WORK DATABASE…
#
# The programs of the newer version read the old server, as their manual asks for. Both listen in a folder of their own alone, and the old
# one is only read. However the script ends, both are stopped.
set -eu
old_bin=$1 old=$2 new_bin=$3 new=$4 sockets=$5 admin=$6 work=$7
shift 7
start() { # BIN DATA PORT
  "$1/pg_ctl" -D "$2" -w -t 600 -s -l "$work/server-$3.log" \
    -o "-p $3 -c listen_addresses='' -c unix_socket_directories='$sockets' -c archive_mode=off" start || {
    tail -n 5 "$work/server-$3.log" >&2
    return 1
  }
}
stop() { "$1/pg_ctl" -D "$2" -w -t 600 -s -m fast stop; }
finish() {
  code=$?
  stop "$new_bin" "$new" 2>/dev/null || true
  stop "$old_bin" "$old" 2>/dev/null || true
  exit $code
}
trap finish EXIT
start "$old_bin" "$old" 5001
start "$new_bin" "$new" 5002
export PGHOST="$sockets" PGUSER="$admin" PGOPTIONS="-c statement_timeout=0"
"$new_bin/pg_dumpall" -p 5001 --globals-only --file "$work/globals.sql"
sed -i "/^CREATE ROLE $admin;/d" "$work/globals.sql"
"$new_bin/psql" -X -q -p 5002 -v ON_ERROR_STOP=1 -d postgres -f "$work/globals.sql" -o /dev/null
for database in "$@"; do
  "$new_bin/pg_dump" -p 5001 -Fc -Z 1 --file "$work/dump" --dbname "$database"
  "$new_bin/pg_restore" -p 5002 --create --clean --if-exists --exit-on-error --dbname template1 "$work/dump"
  rm -f "$work/dump"
done
stop "$new_bin" "$new"
