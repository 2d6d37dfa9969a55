#!/usr/bin/env bash
# Runs a real single-node Apache Kafka (KRaft) on loopback, for the tests that need one.
#
#   kafka.sh fetch            copies the broker's jars with Maven (kept: a second call does nothing)
#   kafka.sh start [--keep]   fetches if needed, formats an empty storage (--keep: goes on with the last one), starts
#                             the broker, waits until it answers; the last line printed is its bootstrap address
#   kafka.sh status           prints the address and exits 0 if the broker runs, 1 if not
#   kafka.sh stop             stops it (SIGTERM, then SIGKILL after 10 s)
#
# Environment: REBOUND_KAFKA_HOME  where jars, storage and logs go (default: target/ beside this script)
#              REBOUND_KAFKA_PORT  the broker's port (default 19092; the controller takes the next one)
#              REBOUND_KAFKA_HEAP  its heap (default 512m)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${REBOUND_KAFKA_HOME:-$here/target}
port=${REBOUND_KAFKA_PORT:-19092}
heap=${REBOUND_KAFKA_HEAP:-512m}
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
lib=$home/lib-$version
run=$home/run-$port
address=127.0.0.1:$port

fail() { echo "kafka.sh: $*" >&2; exit 1; }

fetch() {
  if [[ -f $lib/.complete ]]; then return; fi
  command -v mvn >/dev/null || fail "mvn is not installed: install Maven, or put the broker's jars into $lib and touch $lib/.complete"
  echo "fetching Apache Kafka $version into $lib"
  mkdir -p "$lib"
  # Copied aside and renamed, so that an interrupted fetch is never taken for a whole one.
  local part=$lib.part.$$
  rm -rf "$part"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$part" \
    || { rm -rf "$part"; fail "Maven could not fetch the broker's jars"; }
  [[ -n $(ls "$part"/kafka_*.jar 2>/dev/null) ]] || { rm -rf "$part"; fail "Maven fetched no broker"; }
  touch "$part/.complete"
  rm -rf "$lib"
  mv "$part" "$lib"
}

# The process id of our broker; fails if it does not run (or the id belongs to something else by now).
running() {
  local pid
  pid=$(cat "$run/pid" 2>/dev/null) || return 1
  [[ -n $pid ]] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "kafka.Kafka $run/server.properties" && echo "$pid"
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

java_of() { command -v java || fail "java is not installed: Kafka $version needs Java 17 or later"; }

configure() {
  cat >"$run/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listeners=PLAINTEXT://$address,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://$address
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$run/data
auto.create.topics.enable=false
delete.topic.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=4
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
EOF
  cat >"$run/log4j2.properties" <<EOF
rootLogger.level=WARN
# Says "Kafka Server started", which is what start waits for.
logger.ready.name=kafka.server.KafkaRaftServer
logger.ready.level=INFO
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
EOF
}

start() {
  if running >/dev/null; then echo "already running"; echo "$address"; return; fi
  if answers "$port"; then fail "port $port is in use by something else: set REBOUND_KAFKA_PORT"; fi
  fetch
  local java; java=$(java_of)
  [[ ${1:-} == --keep ]] || rm -rf "$run/data"
  mkdir -p "$run/data"
  configure
  if [[ ! -f $run/data/meta.properties ]]; then
    "$java" -Xmx256m -cp "$lib/*" kafka.tools.StorageTool format --standalone \
      -t "$("$java" -Xmx256m -cp "$lib/*" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)" \
      -c "$run/server.properties" >"$run/format.log" 2>&1 || { cat "$run/format.log" >&2; fail "formatting the storage failed"; }
  fi
  setsid nohup "$java" "-Xmx$heap" -XX:+UseSerialGC "-Dlog4j2.configurationFile=$run/log4j2.properties" \
    -cp "$lib/*" kafka.Kafka "$run/server.properties" >"$run/broker.log" 2>&1 </dev/null &
  local i
  # setsid may fork, so the broker tells its own process id: the one whose command line it is.
  for ((i = 0; i < 50; i++)); do
    pgrep -f "kafka.Kafka $run/server.properties" | tail -1 >"$run/pid"
    [[ -s $run/pid ]] && running >/dev/null && break
    sleep 0.1
  done
  for ((i = 0; i < 300; i++)); do
    running >/dev/null || { tail -30 "$run/broker.log" >&2; fail "the broker did not start: see $run/broker.log"; }
    if grep -q 'Kafka Server started' "$run/broker.log" && answers "$port"; then
      echo "Apache Kafka $version runs as $(cat "$run/pid"), its log is $run/broker.log"
      echo "$address"
      return
    fi
    sleep 0.2
  done
  stop
  fail "the broker did not become ready within its time: see $run/broker.log"
}

stop() {
  local pid i
  if ! pid=$(running); then echo "not running"; rm -f "$run/pid"; return; fi
  kill "$pid"
  for ((i = 0; i < 100; i++)); do
    running >/dev/null || break
    sleep 0.1
  done
  if running >/dev/null; then kill -9 "$pid"; fi
  rm -f "$run/pid"
  echo "stopped"
}

case ${1:-} in
  fetch) fetch ;;
  start) start "${2:-}" ;;
  stop) stop ;;
  status) if running >/dev/null; then echo "$address"; else echo "not running"; exit 1; fi ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
