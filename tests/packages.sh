#!/usr/bin/env bash
# Sees to it that what a build (and with `--kafka` the real Kafka of the tests) needs of Debian is there: root, and who
# becomes root without a password, gets the missing packages installed; everybody else is told which they are.
#
#   tests/packages.sh            a C++ compiler, make, perl with its modules, pkg-config: for librdkafka and OpenSSL
#   tests/packages.sh --kafka    Java 17 or later too, and Maven unless tests/kafka.sh has fetched Kafka already
#   tests/packages.sh --chromium a browser and its driver too, for tests/console.py; whoever cannot install them goes without
set -euo pipefail

has() { command -v "$1" >/dev/null; }

# A minimal Debian has perl, without the modules that OpenSSL's Configure wants.
has_whole_perl() { has perl && perl -MFindBin -MIPC::Cmd -e 1 2>/dev/null; }

has_kafka() {
  local jars
  for jars in "${LICTOR_KAFKA_HOME:-$HOME/.cache/lictor-kafka}"/libs-*; do [[ -d $jars ]] && return; done
  return 1
}

missing=()
has g++ || missing+=(g++)
has make || missing+=(make)
has_whole_perl || missing+=(perl)
has pkg-config || missing+=(pkg-config)
if [[ " $* " == *' --kafka '* ]]; then
  has java || missing+=(default-jre-headless)
  has mvn || has_kafka || missing+=(maven)
fi
wanted=()
if [[ " $* " == *' --chromium '* ]]; then
  has chromium || wanted+=(chromium)
  has chromedriver || wanted+=(chromium-driver)
fi
((${#missing[@]} + ${#wanted[@]})) || exit 0

as_root=()
[[ $EUID -eq 0 ]] || as_root=(sudo -n)
if ((${#missing[@]} == 0)) && { ! has apt-get || ! "${as_root[@]}" true 2>/dev/null; }; then
  echo "without ${wanted[*]} the console is not looked at" >&2
  exit 0
fi
if ! has apt-get || ! "${as_root[@]}" true 2>/dev/null; then
  echo "packages are missing; on Debian: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
missing+=("${wanted[@]}")
echo "installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -q >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q --yes --no-install-recommends "${missing[@]}" >&2
