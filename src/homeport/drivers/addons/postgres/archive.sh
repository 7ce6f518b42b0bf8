#!/bin/sh
# Copies one finished WAL segment into the archive: archive.sh FROM NAME INTO
#
# Whole or not at all, on the disk before success is said, and never over another one: PostgreSQL asks again after any failure, and
# success for a segment that is there with the same content already is what its manual asks for (continuous archiving, 25.3.1).
#
# A full segment is copied inside the kernel, which costs a sixth of looking for zeros in it; one that was finished early ends in zeros
# (its last 64 KiB tell), and those are not written.
set -eu
from=$1
target="$3/$2"
part="$3/.$2.part"
if [ -e "$target" ]; then
  cmp -s -- "$from" "$target" && exit 0
  echo "archive: $2 is there with other content and was not overwritten" >&2
  exit 1
fi
[ ! -e "$part" ] || rm -f -- "$part"
if cmp -s -n 65536 -i 16711680:0 -- "$from" /dev/zero; then
  cp --sparse=always -- "$from" "$part" 2>/dev/null || cp -- "$from" "$part"
else
  cp -- "$from" "$part"
fi
sync -- "$part"
ln -- "$part" "$target"
rm -f -- "$part"
sync -- "$3"
