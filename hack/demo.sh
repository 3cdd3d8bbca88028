#!/bin/bash
# A whole cluster in one process, two frameworks that share it, and a check of everything they did.
# Leaves nothing behind: what it makes is in one temporary directory, what it starts it stops.
#
#   CMN=path of the executable    CORPUS_MB=size of the text
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "containers need root: going on with sudo" >&2
    exec sudo env "PATH=$PATH" "CMN=${CMN:-}" "CORPUS_MB=${CORPUS_MB:-24}" "$0" "$@"
fi

cmn=${CMN:-$PWD/target/debug/cmn}
wordcount=$(dirname "$cmn")/wordcount
corpus_mb=${CORPUS_MB:-24}
export LC_ALL=C

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
seconds() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f s", b - a }'; }


work=$(mktemp -d /var/tmp/commonage-demo.XXXXXX)
# Tasks read the corpus in it, and see what every user may see; the cluster's own data stays closed.
chmod 755 "$work"
up='' counting=''
stop() {
    local pid=$1
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
cleanup() {
    local rc=$?
    trap - EXIT INT TERM
    stop "$counting"
    stop "$up"
    if [ $rc != 0 ] && [ -s "$work/up.log" ]; then
        echo "--- the last lines of the cluster's log:" >&2
        tail -20 "$work/up.log" >&2
    fi
    rm -rf "$work"
    exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM

title "A corpus from this machine's own documents"
examples/wordcount/corpus.sh "$work/corpus.txt" "$corpus_mb"

title "A cluster: store, API server, controllers and one agent in one process"
began=$(seconds)
echo "$ cmn up --data-dir $work/data --listen 127.0.0.1:0"
# In a session of its own: a Ctrl-C is for this script, which then stops the cluster in order.
setsid "$cmn" up --data-dir "$work/data" --listen 127.0.0.1:0 >"$work/up.log" 2>&1 &
up=$!
export KUBECONFIG=$work/data/kubeconfig
# The kubeconfig is written when the API server listens; a cluster that died says why in its log.
for _ in $(seq 300); do
    [ -s "$KUBECONFIG" ] && break
    kill -0 $up 2>/dev/null || fail "the cluster did not start"
    sleep 0.1
done
agent=$(hostname)
"$cmn" wait "agent/$agent" --for=condition=Ready --timeout 60s >/dev/null || fail "the agent did not become ready"
cat "$work/up.log"
echo "ready after $(since "$began")"

title "A task by hand"
show "$cmn" run --name hello --cpu 0.1 --memory 32Mi --rm -- sh -c 'echo "hello from a container, process $$ of its own world"'

title "Services: three redis servers, placed by the control plane (queue services, weight 2)"
show kubectl create namespace batch
show kubectl apply -f examples/services.yaml
show "$cmn" wait task/redis-0 task/redis-1 task/redis-2 --for=state=Running --timeout 60s

title "Batch: a framework that answers its own offers (queue batch, weight 1)"
began=$(seconds)
mkdir "$work/counts"
echo "$ wordcount corpus.txt --splits 12"
setsid "$wordcount" "$work/corpus.txt" --namespace batch --queue batch --splits 12 \
    --work-dir "$work/counts" --output "$work/result.txt" >"$work/wordcount.log" 2>&1 &
counting=$!
"$cmn" wait framework/wordcount -n batch --for=create --timeout 30s >/dev/null
for _ in $(seq 100); do
    if kubectl get tasks -n batch --no-headers 2>/dev/null | grep -q . || ! kill -0 $counting 2>/dev/null; then break; fi
    sleep 0.05
done
show kubectl get tasks,offers,agents,queues,frameworks -A
wait "$counting" || { cat "$work/wordcount.log"; fail "the framework failed"; }
took=$(since "$began")
counting=''
cat "$work/wordcount.log"
echo "counted in $took"

title "Is it right? The same by sort | uniq -c"
tr -cs A-Za-z '\n' <"$work/corpus.txt" | tr A-Z a-z | grep . | sort | uniq -c | awk '{ print $2, $1 }' | sort >"$work/expected.txt"
cmp "$work/expected.txt" "$work/result.txt" || fail "the counts differ"
echo "yes: $(wc -l <"$work/result.txt") words, all counts equal. The most frequent:"
sort -k2,2nr "$work/result.txt" | awk 'NR <= 5 { printf "   %8d  %s\n", $2, $1 }'

title "Do the services answer?"
for i in 0 1 2; do
    port=$(kubectl get task "redis-$i" -o jsonpath='{.status.hostPorts[0]}')
    redis-cli -h 127.0.0.1 -p "$port" set demo "value $i" >/dev/null
    [ "$(redis-cli -h 127.0.0.1 -p "$port" get demo)" = "value $i" ] || fail "redis-$i does not answer on port $port"
    echo "redis-$i on port $port: $(redis-cli -h 127.0.0.1 -p "$port" ping)"
done
show "$cmn" get tasks -o wide

title "Down again"
uids=$(kubectl get tasks -o jsonpath='{range .items[*]}{.metadata.uid}{"\n"}{end}')
show kubectl delete task redis-0 redis-1 redis-2
stop "$up"
if kill -0 "$up" 2>/dev/null; then fail "the cluster still runs"; fi
up=''
left=$(pgrep -f -- "$work/data" || true)
[ -z "$left" ] || fail "processes are left: $(echo $left)"
if grep -q "$work" /proc/self/mounts; then fail "mounts are left: $(grep "$work" /proc/self/mounts)"; fi
for uid in $uids; do
    groups=$(find /sys/fs/cgroup -type d -name "*$uid*")
    [ -z "$groups" ] || fail "control groups are left: $groups"
done
rm -rf "$work"
[ ! -e "$work" ] || fail "$work is left"
echo "no process, no mount, no control group, no file is left"
