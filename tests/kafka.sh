#!/usr/bin/env bash
# One real Apache Kafka node (KRaft, loopback, throw-away data) for tests, from the jars on Maven Central.
#
#   tests/kafka.sh start               prints KAFKA_BOOTSTRAP=127.0.0.1:<port>; a second start reuses the first node
#   tests/kafka.sh stop                stops the node that `start` started, by its own pid, and deletes its data
#   tests/kafka.sh status              says whether it serves; exit status 0 if so, 3 if not
#   tests/kafka.sh env                 prints KAFKA_BOOTSTRAP=… of the running node
#   tests/kafka.sh secure              prints KAFKA_SECURE=127.0.0.1:<port> and KAFKA_CA=<file>: its other listener
#   tests/kafka.sh restart             stops the node in order and starts it again: same port, same data
#   tests/kafka.sh crash               ends the node with kill -9; its data stays
#   tests/kafka.sh resume              starts a node that has crashed again: same port, same data
#   tests/kafka.sh topics …            Kafka's own command-line tools against that node, or against $KAFKA_BOOTSTRAP:
#   tests/kafka.sh configs|groups …    `topics --list`, `configs --describe --topic t`, `groups --list`,
#   tests/kafka.sh console-consumer …  `console-consumer --topic t --from-beginning --timeout-ms 5000`,
#   tests/kafka.sh console-producer …  `console-producer --topic t`
#   tests/kafka.sh acls …              `acls --list`
#
# Whoever comes by KAFKA_BOOTSTRAP may do everything. KAFKA_SECURE is TLS with SASL (PLAIN, SCRAM-SHA-256 and -512,
# OAUTHBEARER with unsigned tokens); there nobody may do anything that no ACL grants. Its users are `lictor` and
# `gateway`, both with the password `test-password`.
#
# LICTOR_KAFKA_HOME   where jars and run files live (default ~/.cache/lictor-kafka)
# LICTOR_KAFKA_NAME   which node is meant, if several run side by side (default "default")
set -euo pipefail

# 4.1.1 is the version docker-compose.yml runs: what is tested is what is deployed.
readonly kafka_version=4.1.1
readonly home=${LICTOR_KAFKA_HOME:-$HOME/.cache/lictor-kafka}
readonly name=${LICTOR_KAFKA_NAME:-default}
readonly libs=$home/libs-$kafka_version
readonly state=$home/run/$name.env
# Seconds; a cold JVM on two busy cores needs about ten.
readonly start_deadline_s=90
readonly stop_deadline_s=20
readonly password=test-password

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

require_java() {
  command -v java >/dev/null || die 'java is missing: apt-get install default-jre-headless'
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [[ ${major:-0} -ge 17 ]] || die "Kafka $kafka_version needs Java 17, this is Java ${major:-unknown}: apt-get install default-jre-headless"
}

write_pom() {
  cat >"$1" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>lictor</groupId><artifactId>test-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka_version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
}

# Downloads into a scratch directory and renames it: an interrupted download never looks like a finished one.
fetch_jars() {
  [[ -d $libs ]] && return
  command -v mvn >/dev/null || die 'mvn is missing: apt-get install maven (needed once, to download Kafka)'
  say "downloading Kafka $kafka_version from Maven Central to $libs (43 MB, once)"
  local scratch
  scratch=$(mktemp -d "$home/fetch.XXXXXX")
  write_pom "$scratch/pom.xml"
  mvn -B -ntp -q -f "$scratch/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$scratch/libs" >&2 || { rm -rf "$scratch"; die 'the download from Maven Central did not succeed'; }
  mv -T "$scratch/libs" "$libs" 2>/dev/null || [[ -d $libs ]]
  rm -rf "$scratch"
}

# $1: heap, the rest: main class and arguments. C1 only and a serial collector: these processes live for seconds.
jvm() {
  local heap=$1
  shift
  java "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dorg.slf4j.simpleLogger.defaultLogLevel="${LICTOR_KAFKA_LOG:-warn}" -cp "$libs/*" "$@"
}

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below 32768, where the kernel picks the ports of outgoing connections.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    is_open "$port" || { echo "$port"; return; }
  done
  die 'no free port between 20000 and 32000'
}

write_server_properties() {
  local broker=$1 controller=$2 secure=$3 data=$4
  local plain=org.apache.kafka.common.security.plain.PlainLoginModule
  local scram=org.apache.kafka.common.security.scram.ScramLoginModule
  local bearer=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule
  cat >"$data/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$broker,SECURE://127.0.0.1:$secure,CONTROLLER://127.0.0.1:$controller
advertised.listeners=SECURE://127.0.0.1:$secure,PLAINTEXT://127.0.0.1:$broker
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.backoff.ms=1000
message.max.bytes=10485760
auto.create.topics.enable=false
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.ssl.keystore.location=$data/node.p12
listener.name.secure.ssl.keystore.password=$password
listener.name.secure.plain.sasl.jaas.config=$plain required user_lictor="$password" user_gateway="$password";
listener.name.secure.scram-sha-256.sasl.jaas.config=$scram required;
listener.name.secure.scram-sha-512.sasl.jaas.config=$scram required;
listener.name.secure.oauthbearer.sasl.jaas.config=$bearer required unsecuredLoginStringClaim_sub="node";
PROPERTIES
}

# A certificate that vouches for itself, for clients that are told of it.
make_certificate() {
  local store=(-alias node -storetype PKCS12 -keystore "$1/node.p12" -storepass "$password")
  keytool -genkeypair "${store[@]}" -keyalg EC -groupname secp256r1 -validity 30 -dname CN=127.0.0.1 \
    -ext san=ip:127.0.0.1,dns:localhost -ext bc=ca:true >/dev/null 2>&1 || die 'keytool has made no certificate'
  keytool -exportcert -rfc "${store[@]}" >"$1/node.pem" 2>/dev/null
}

# A pid alone may have been reused; the command line names our data directory.
is_running() {
  [[ -f $state ]] || return 1
  local KAFKA_PID='' KAFKA_DATA='' KAFKA_BOOTSTRAP=''
  # shellcheck disable=SC1090
  . "$state"
  tr '\0' ' ' <"/proc/$KAFKA_PID/cmdline" 2>/dev/null | grep -qF "$KAFKA_DATA/server.properties"
}

# Answers a metadata request; an open port alone does not mean that.
serves() {
  local servers
  servers=$(sed -n 's/^KAFKA_BOOTSTRAP=//p' "$state")
  KAFKA_BOOTSTRAP=$servers timeout 20 "$0" topics --list >/dev/null 2>&1
}

# Starts a node on the data in $1 and waits until it serves; returns 1 if it ended by itself.
run_node() {
  local data=$1 broker pid deadline
  broker=$(sed -n 's/^advertised.listeners=.*PLAINTEXT.*:\([0-9]*\)$/\1/p' "$data/server.properties")
  # exec, so that the pid is the JVM's own; the lock and the caller's output are not inherited.
  (cd "$data" && exec setsid java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -Dorg.slf4j.simpleLogger.defaultLogLevel="${LICTOR_KAFKA_LOG:-warn}" -cp "$libs/*" \
    kafka.Kafka "$data/server.properties" </dev/null >>"$data/server.log" 2>&1 9>&-) &
  pid=$!
  printf 'KAFKA_PID=%s\nKAFKA_DATA=%q\nKAFKA_BOOTSTRAP=127.0.0.1:%s\n' "$pid" "$data" "$broker" >"$state"
  deadline=$((SECONDS + start_deadline_s))
  while ((SECONDS < deadline)); do
    if ! kill -0 "$pid" 2>/dev/null; then
      say "the node ended by itself:"
      tail -n 20 "$data/server.log" >&2
      return 1
    fi
    if is_open "$broker" && serves; then return; fi
    sleep 0.2
  done
  tail -n 40 "$data/server.log" >&2
  stop
  die "the node did not serve within $start_deadline_s s"
}

# Makes a node and starts it; returns 1 if it ended by itself (a port was taken between looking and binding).
launch() {
  local data broker controller secure
  data=$(mktemp -d "${TMPDIR:-/tmp}/lictor-kafka.XXXXXX")
  broker=$(free_port)
  controller=$(free_port)
  secure=$(free_port)
  write_server_properties "$broker" "$controller" "$secure" "$data"
  make_certificate "$data"
  local cluster_id user users=()
  for user in lictor gateway; do
    users+=(-S "SCRAM-SHA-256=[name=$user,password=$password]" -S "SCRAM-SHA-512=[name=$user,password=$password]")
  done
  cluster_id=$(jvm 128m kafka.tools.StorageTool random-uuid 2>/dev/null)
  jvm 128m kafka.tools.StorageTool format -t "$cluster_id" -c "$data/server.properties" "${users[@]}" >"$data/format.log" 2>&1 ||
    { cat "$data/format.log" >&2; die 'formatting the storage did not succeed'; }
  run_node "$data" && return
  rm -rf "$data" "$state"
  return 1
}

print_bootstrap() { grep '^KAFKA_BOOTSTRAP=' "$state"; }

print_secure() {
  local KAFKA_DATA=''
  # shellcheck disable=SC1090
  . "$state"
  sed -n 's/^advertised.listeners=SECURE:..\([^,]*\),.*/KAFKA_SECURE=\1/p' "$KAFKA_DATA/server.properties"
  echo "KAFKA_CA=$KAFKA_DATA/node.pem"
}

start() {
  mkdir -p "$home/run"
  exec 9>"$home/run/$name.lock"
  flock 9
  if is_running && serves; then
    print_bootstrap
    return
  fi
  require_java
  fetch_jars
  stop
  for _ in 1 2 3; do
    if launch; then
      print_bootstrap
      return
    fi
  done
  die 'three attempts to start a node did not succeed'
}

# Ends the node's process with the signal $1, or with KILL if that takes too long. Its data stays.
end_node() {
  local KAFKA_PID='' KAFKA_DATA='' KAFKA_BOOTSTRAP=''
  # shellcheck disable=SC1090
  . "$state"
  is_running || return 0
  kill "-$1" "$KAFKA_PID"
  local deadline=$((SECONDS + stop_deadline_s))
  while is_running && ((SECONDS < deadline)); do sleep 0.1; done
  ! is_running || kill -9 "$KAFKA_PID"
}

stop() {
  [[ -f $state ]] || return 0
  end_node TERM
  local KAFKA_DATA=''
  # shellcheck disable=SC1090
  . "$state"
  [[ $KAFKA_DATA == */lictor-kafka.?????? ]] && rm -rf "$KAFKA_DATA"
  rm -f "$state"
}

crash() {
  is_running || die "no node named $name is running"
  end_node KILL
}

resume() {
  ! is_running || die "the node named $name is running"
  [[ -f $state ]] || die "no node named $name has crashed: tests/kafka.sh start"
  exec 9>"$home/run/$name.lock"
  flock 9
  local KAFKA_DATA=''
  # shellcheck disable=SC1090
  . "$state"
  run_node "$KAFKA_DATA" || die 'the node does not start on its data'
}

restart() {
  is_running || die "no node named $name is running"
  end_node TERM
  resume
}

status() {
  if ! is_running; then
    echo "$name: not running"
    exit 3
  fi
  serves || { echo "$name: running, does not answer"; exit 3; }
  echo "$name: serves"
  cat "$state"
}

bootstrap() {
  if [[ -n ${KAFKA_BOOTSTRAP:-} ]]; then
    echo "$KAFKA_BOOTSTRAP"
  else
    [[ -f $state ]] || die "no node named $name: tests/kafka.sh start, or set KAFKA_BOOTSTRAP"
    sed -n 's/^KAFKA_BOOTSTRAP=//p' "$state"
  fi
}

tool() {
  local class=$1 servers
  shift
  servers=$(bootstrap)
  require_java
  fetch_jars
  jvm 256m "$class" --bootstrap-server "$servers" "$@"
}

case ${1:-} in
  start) start ;;
  stop)
    stop
    # Names can be made up per run; without this each would leave its lock behind.
    rm -f "$home/run/$name.lock"
    ;;
  status) status ;;
  env)
    is_running || die "no node named $name is running"
    print_bootstrap
    ;;
  secure)
    is_running || die "no node named $name is running"
    print_secure
    ;;
  restart) restart ;;
  crash) crash ;;
  resume) resume ;;
  topics) tool org.apache.kafka.tools.TopicCommand "${@:2}" ;;
  configs) tool kafka.admin.ConfigCommand "${@:2}" ;;
  acls) tool org.apache.kafka.tools.AclCommand "${@:2}" ;;
  groups) tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "${@:2}" ;;
  console-consumer) tool org.apache.kafka.tools.consumer.ConsoleConsumer "${@:2}" ;;
  console-producer) tool org.apache.kafka.tools.ConsoleProducer "${@:2}" ;;
  *)
    sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
