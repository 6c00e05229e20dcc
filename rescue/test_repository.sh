#!/usr/bin/env bash
# Makes a fresh repository with bulla and restores it with the second reader; the trees must be identical.
# usage: rescue/test_repository.sh path/to/bulla
set -euo pipefail
bulla=$1
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
src=$work/src
mkdir -p "$src/dir/deep" "$src/empty"
for i in $(seq 300); do printf 'file %s\n%.0s' $(seq "$i") >"$src/dir/f$i"; done
head -c 3000000 /dev/urandom >"$src/large"
ln "$src/large" "$src/dir/hard"
ln -s ../large "$src/dir/soft"
truncate -s 50M "$src/sparse"
printf data | dd of="$src/sparse" bs=1 seek=20000000 conv=notrunc status=none
printf x >"$src/"$'odd\x01\xffname'
chmod 4750 "$src/dir/f1"
touch -d '2001-02-03 04:05:06.789' "$src/dir/f2"
export BULLA_CACHE_DIR=$work/cache
"$bulla" -r "$work/repo" init --parity 3% --key-file-out "$work/key" --recovery-key-out "$work/recovery" >/dev/null
"$bulla" -r "$work/repo" --key-file "$work/key" backup --quiet "$src" >/dev/null
for key in key recovery; do
  "$python" "$here/bulla_rescue.py" -r "$work/repo" --key-file "$work/$key" restore latest "$work/out-$key"
  if command -v rsync >/dev/null; then
    differ=$(rsync -aHn --itemize-changes --checksum --delete "$src/" "$work/out-$key$src/")
  else
    differ=$(diff -r --no-dereference "$src" "$work/out-$key$src" || true)
  fi
  [ -z "$differ" ] || { printf 'the second reader differs:\n%s\n' "$differ"; exit 1; }
done
echo "second reader: identical, with key file and with recovery key"

# The largest pack, with bytes spoiled in its header and in its middle, from its sidecar and without a key.
pack=$(find "$work/repo/packs" -type f -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
install -m 600 "$pack" "$work/spoiled"
for at in 20 $(($(stat -c %s "$pack") / 2)); do
  printf spoiled | dd of="$work/spoiled" bs=1 seek="$at" conv=notrunc status=none
done
"$python" "$here/bulla_parity.py" "$work/spoiled" "$work/repo/parity/${pack#"$work/repo/packs/"}" "$work/healed"
cmp "$pack" "$work/healed"
echo "second reader: a spoiled pack is as it was"
