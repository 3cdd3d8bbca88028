#!/bin/bash
# Makes a corpus of at least 10 MB out of this machine's own documents: licences, package
# documentation, manual pages. Same machine, same corpus.   usage: corpus.sh FILE [MEGABYTES]
set -euo pipefail
export LC_ALL=C
file=$1 want=$((${2:-12} * 1000 * 1000))

documents() {
    cat /usr/share/common-licenses/* 2>/dev/null
    for directory in /usr/share/doc /usr/share/man; do
        [ -d "$directory" ] || continue
        find "$directory" -type f \( -name '*.gz' -o -name '*.txt' -o -name 'copyright' -o -name 'README*' \) -print0 |
            sort -z | xargs -0 -r -n 200 zcat -f -q 2>/dev/null
    done
    # A machine without documents still has licences; they are repeated until it is enough.
    while :; do cat /usr/share/common-licenses/* || exit 1; done
}

mkdir -p "$(dirname "$file")"
# head ends first, so that the writer before it always dies of its closed pipe.
(set +o pipefail; documents 2>/dev/null | head -c "$want" | sed '$a\' >"$file")
echo "$(wc -c <"$file") bytes, $(wc -l <"$file") lines in $file"
