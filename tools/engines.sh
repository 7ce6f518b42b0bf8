#!/usr/bin/env bash
# Install the system's engines that the contract suite runs against. Without root or packages it says so, and their tests are skipped.
set -uo pipefail
found() { PATH="$PATH:/usr/sbin:/usr/libexec" command -v "$1" >/dev/null; }
if found mariadbd; then
  echo "MariaDB is installed."
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! found apt-get; then
  echo "MariaDB is not installed, and this account cannot install it (apt-get install mariadb-server): its tests are skipped."
  exit 0
fi
# The package's own server is not wanted: each add-on has one of its own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if (apt-get update -q && apt-get install -y -q --no-install-recommends mariadb-server) >"$log" 2>&1; then
  echo "MariaDB was installed."
else
  echo "MariaDB could not be installed: its tests are skipped. Last lines:"
  tail -5 "$log"
fi
[ -z "$made" ] || rm -f "$policy"
rm -f "$log"
