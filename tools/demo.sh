#!/bin/bash
# Shows the whole path on this machine: no worker runs, ffmpeg publishes, a worker starts, the stream arrives, the worker stops again.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'USAGE'
usage: tools/demo.sh [SECONDS]

Builds if needed, then streams for SECONDS (10) from ffmpeg through LiveEdgeCast to nginx-rtmp, and prints each step.
Leaves a picture of the relayed stream in demo-out/frame.png, and logs beside it. HANDOFF=link shows the handoff by link.
USAGE
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac
seconds=${1:-10}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "demo.sh: not a number of seconds: $seconds" >&2; usage >&2; exit 2; }
[[ $(uname) == Linux ]] || { echo 'demo.sh: needs Linux' >&2; exit 1; }

tools/setup.sh run demo
echo 'building (minutes the first time) ...'
cargo build --release --locked --quiet -p liveedgecast-activator -p liveedgecast-worker --bins
binaries=${CARGO_TARGET_DIR:-target}${CARGO_BUILD_TARGET:+/$CARGO_BUILD_TARGET}/release

# Every program listens on a loopback address of its own, where the usual ports are free.
upstream=127.83.20.1 edge=127.83.20.2 cooldown=3
out=demo-out
rm -rf "$out"
mkdir -p "$out/nginx"
nginx='' activator='' publisher='' follower=''

end() {
  local status=$?
  trap - EXIT
  for id in $follower $publisher $activator $nginx; do kill "$id" 2> /dev/null || true; done
  for id in $publisher $activator $nginx; do wait "$id" 2> /dev/null || true; done
  if [[ $status -ne 0 ]]; then
    echo "demo.sh: the demo failed; the logs are in $out/" >&2
    for log in activator ffmpeg nginx; do [[ -s $out/$log.log ]] && tail -n 5 "$out/$log.log" >&2; done
  fi
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

fail() { echo "demo.sh: $*" >&2; exit 1; }
say() { if [[ -t 1 ]]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
# eventually WHAT COMMAND...: waits until the command succeeds, 30 s at most.
eventually() {
  local what=$1 try
  shift
  for ((try = 0; try < 600; try++)); do
    if "$@" > /dev/null 2>&1; then return; fi
    sleep 0.05
  done
  fail "waited in vain for $what"
}
api() { curl -fsS --max-time 5 "http://$edge:8080/api/v1/$1"; }
metric() { # metric NAME [LABEL]: the sum over its series
  curl -fsS --max-time 5 "http://$edge:8080/metrics" |
    awk -v name="$1" -v label="${2:-}" 'index($1, name "{") == 1 || $1 == name { if (label == "" || index($0, label)) sum += $2 }
      END { printf "%.10g\n", sum }'
}
workers() { pgrep -P "$activator" || true; }
cpu_ms() { # cpu_ms PID: CPU time by the scheduler's count
  cat "/proc/$1/task/"*/schedstat 2> /dev/null | awk '{ sum += $1 } END { printf "%d\n", sum / 1e6 }'
}
memory_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status" 2> /dev/null || echo 0; }
listens() { (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; }
stream_is() { [[ $(api streams | jq -r '.[0].state') == "$1" ]]; }

for port in "$upstream 1935" "$edge 1935" "$edge 8080" "$edge 6001" "$edge 6002"; do
  read -r address number <<< "$port"
  if listens "$address" "$number"; then fail "something listens on $address:$number already; is another demo running?"; fi
done

say "1. An upstream: nginx-rtmp at rtmp://$upstream/live"
cat > "$out/nginx/nginx.conf" << CONF
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; pid pid; error_log stderr info;
events { worker_connections 64; }
rtmp { server { listen $upstream:1935; chunk_size 4096; application live { live on; } } }
CONF
nginx -e stderr -p "$PWD/$out/nginx" -c nginx.conf 2> "$out/nginx.log" &
nginx=$!
eventually 'nginx to listen' listens "$upstream" 1935

say "2. LiveEdgeCast at rtmp://$edge/live, pushing to it"
env RTMP_PUSH_URL="rtmp://$upstream/live/{key}" RTMP_LISTEN="$edge:1935" HTTP_LISTEN="$edge:8080" \
  CONTROL_LISTEN="$edge:6001" LINK_LISTEN="$edge:6002" COOLDOWN="${cooldown}s" HANDOFF="${HANDOFF:-auto}" LOG_FORMAT=json \
  RUST_LOG=info,liveedgecast_activator=debug,liveedgecast_worker=debug "$binaries/liveedgecast-activator" 2> "$out/activator.log" &
activator=$!
eventually 'the activator to serve' api demand
echo "   processes: activator $activator ($(memory_kib $activator) KiB); workers: $(workers | wc -l)"
echo "   demand:    $(api demand)"

say '3. ffmpeg publishes a moving test picture and a tone'
lines=$(wc -l < "$out/activator.log")
began=$(date -u +%FT%T.%3NZ)
ffmpeg -hide_banner -nostdin -v info -nostats -re -f lavfi -i testsrc2=size=640x360:rate=30 -re -f lavfi -i sine=frequency=440 \
  -c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 30 -b:v 1000k -c:a aac -b:a 96k \
  -f flv "rtmp://$edge/live/demo" 2> "$out/ffmpeg.log" &
publisher=$!
# The activator's log while it is written, in milliseconds since the start of ffmpeg, which needs some tens of them for itself.
tail -n "+$((lines + 1))" -F "$out/activator.log" 2> /dev/null | jq --unbuffered -Rr --arg began "$began" '
  def ms: (.[0:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber);
  def shown: (.event // "") | test("^(stream|worker|process|upstream|start)[.]");
  fromjson? | select(shown) | (.timestamp | ms) as $at
  | with_entries(select(.key | IN("message", "app", "pid", "worker", "descriptor", "upstream") or endswith("_ms"))) as $told
  | ($told | to_entries | map(select(.key != "message") | "\(.key)=\(.value)") | join(" ")) as $rest
  | "   \($at - ($began | ms) | tostring | " " * (6 - length) + .) ms  \(.message)  \($rest)"' &
follower=$!
eventually 'the stream to be live' stream_is live
sleep 0.3
kill "$follower" 2> /dev/null || true
follower=''

say '4. The stream at the upstream, pulled back'
pulled="rtmp://$upstream/live/demo"
ffmpeg -hide_banner -nostdin -v error -y -i "$pulled" -frames:v 1 "$out/frame.png" ||
  fail 'ffmpeg cannot pull the stream from the upstream'
ffmpeg -hide_banner -nostdin -v error -xerror -i "$pulled" -t 2 -f null - || fail 'the stream at the upstream cannot be decoded'
echo "   a picture of it: $out/frame.png ($(stat -c %s "$out/frame.png") bytes); two seconds decoded without an error"
worker=$(workers | head -n 1)
echo "   processes: activator $activator ($(memory_kib $activator) KiB); worker $worker ($(memory_kib "$worker") KiB)"
before=$(cpu_ms $activator) before_worker=$(cpu_ms "$worker")
echo "   streaming for $seconds s ..."
sleep "$seconds"
echo "   streams:   $(api streams)"
activator_ms=$(($(cpu_ms $activator) - before)) worker_ms=$(($(cpu_ms "$worker") - before_worker))
activator_kib=$(memory_kib $activator) worker_kib=$(memory_kib "$worker")

say '5. The publisher ends'
kill -INT "$publisher"
wait "$publisher" 2> /dev/null || true
publisher=''
no_demand() { [[ $(api demand | jq .demand) == 0 ]]; }
eventually 'the stream to end' no_demand
received=$(metric liveedgecast_received_messages_total) sent=$(metric liveedgecast_upstream_sent_messages_total)
lost=$(metric liveedgecast_upstream_lost_messages_total) replayed=$(metric liveedgecast_upstream_replayed_messages_total)
cold=$(metric liveedgecast_publish_start_seconds_sum 'kind="cold"' | awk '{ printf "%.1f", $1 * 1000 }')
echo "   demand:    $(api demand)"
echo "   workers:   $(workers | wc -l), idle; they stop after ${cooldown} s"
no_worker() { [[ -z $(workers) ]]; }
eventually 'the worker to stop' no_worker
echo "   workers:   $(workers | wc -l); activator $activator ($(memory_kib $activator) KiB)"

say 'Report'
cat << REPORT
   cold start          $cold ms from publish to start, with no worker running before
   messages            $received in, $sent out, $lost lost, $replayed repeated
   CPU over $seconds s$(printf '%*s' $((9 - ${#seconds})) '') activator $activator_ms ms, worker $worker_ms ms
   memory while live   activator $activator_kib KiB, worker $worker_kib KiB
   picture             $out/frame.png
REPORT
[[ $lost == 0 ]] || fail "$lost messages were lost"
