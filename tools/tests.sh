#!/usr/bin/env bash
# Run pytest: tools/tests.sh PYTHON [arguments]. What failed is tried again, at most twice, one test at a time, with fixtures of its own.
#
# Servers are started and killed by the hundred in these tests, on machines that do other work too. A failure is printed whole, also of a
# test that passes when it is tried again; one that fails three times fails, and so does a run in which many failed.
set -uo pipefail
python=$1
shift
most=10
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
case " $* " in *" -n "*) alone=(-n 1) ;; *) alone=() ;; esac
run() { "$python" -m pytest -q -o cache_dir="$cache" "$@"; }
failed() { "$python" -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$cache/v/cache/lastfailed"; }

run "$@"
code=$?
for again in 1 2; do
  if [ "$code" != 1 ] || [ ! -f "$cache/v/cache/lastfailed" ]; then
    break
  fi
  if [ "$(failed | wc -l)" -gt "$most" ]; then
    echo "More than $most tests failed: they are not tried again."
    break
  fi
  printf '\nTried again (%s of 2), alone:\n%s\n' "$again" "$(failed)"
  run "$@" "${alone[@]}" --last-failed --last-failed-no-failures none
  code=$?
done
exit "$code"
