#!/usr/bin/env bash
# Run the core tests as an ordinary user: nothing may depend on being root. Does nothing (and says so) when it is not root itself.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
  echo "Not root: 'make test' is already the run of an ordinary user."
  exit 0
fi
account=homeport-test
id "$account" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$account"
base=$(getent passwd "$account" | cut -d: -f6)
work=$base/tree
rm -rf "$work"
mkdir -p "$work/homeport"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$work/homeport"
[ -d ../shared ] && ln -s "$(realpath ../shared)" "$work/shared"
chown -R "$account:$account" "$work"
python=/usr/bin/python3
"$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python=
# An interpreter below a private folder (such as root's own) cannot be used by another account.
for candidate in $python python3.13 python3.12 python3.11 python3; do
  if runuser -u "$account" -- "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    chosen=$candidate
    break
  fi
done
if [ -z "${chosen:-}" ]; then
  echo "No Python 3.11 that an ordinary account can run: skipped."
  exit 0
fi
runuser -u "$account" -- env -C "$work/homeport" HOME="$base" PATH=/usr/local/bin:/usr/bin:/bin \
  make -s .venv/.development PYTHON="$chosen"
runuser -u "$account" -- env -C "$work/homeport" HOME="$base" PATH=/usr/local/bin:/usr/bin:/bin \
  bash tools/tests.sh .venv/bin/python -m "not slow" -n 2 --dist loadgroup tests/contracts tests/e2e tests/unit/store tests/unit/deploys tests/unit/drivers
