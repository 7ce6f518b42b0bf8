#!/usr/bin/env bash
# Install the system's engines that the contract suite runs against. Without root or packages it says so, and their tests are skipped.
set -uo pipefail
found() { PATH="$PATH:/usr/sbin:/usr/libexec" command -v "$1" >/dev/null; }
wanted=()
found mariadbd || wanted+=(mariadb-server)
found pgbouncer || wanted+=(pgbouncer)
[ -n "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" ] || wanted+=(postgresql)
if [ ${#wanted[@]} = 0 ]; then
  echo "MariaDB, PostgreSQL and pgbouncer are installed."
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! found apt-get; then
  echo "This account cannot install what is missing (apt-get install ${wanted[*]}): its tests are skipped."
  exit 0
fi
# The packages' own servers are not wanted: each add-on has one of its own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if (apt-get update -q && apt-get install -y -q --no-install-recommends "${wanted[@]}") >"$log" 2>&1; then
  echo "Installed: ${wanted[*]}."
else
  echo "Not installed: ${wanted[*]}; their tests are skipped. Last lines:"
  tail -5 "$log"
fi
[ -z "$made" ] || rm -f "$policy"
rm -f "$log"
