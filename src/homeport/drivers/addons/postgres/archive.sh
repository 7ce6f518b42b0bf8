#!/bin/sh
# Copies one finished WAL segment into the archive: archive.sh FROM NAME INTO
#
# Whole or not at all, on the disk before success is said, and never over another one: PostgreSQL asks again after any failure, and
# success for a segment that is there with the same content already is what its manual asks for (continuous archiving, 25.3.1).
set -eu
from=$1
target="$3/$2"
part="$3/.$2.part"
if [ -e "$target" ]; then
  cmp -s -- "$from" "$target" && exit 0
  echo "archive: $2 is there with other content and was not overwritten" >&2
  exit 1
fi
rm -f -- "$part"
cp --sparse=always -- "$from" "$part" 2>/dev/null || cp -- "$from" "$part"
sync -- "$part"
ln -- "$part" "$target"
rm -f -- "$part"
sync -- "$3"
