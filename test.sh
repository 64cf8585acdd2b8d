#!/usr/bin/env bash
# Installs what the tests need into .venv and test/clients, and runs them all. It
# needs Go and Python 3, and the package registries the first time; what is
# tested with Node.js, Java and Ruby is skipped where these are missing.
#
#   ./test.sh             everything
#   ./test.sh vet go      only these sections (see below for their names)
#
# Every section runs, whatever became of those before it; the summary at the
# end says which failed.
set -u
cd "$(dirname "$0")" || exit 1

STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.8.2
VENV=.venv
CLIENTS=test/clients
SKIP=77 # a section's status when what it needs is not there
FAILURE='^ *--- FAIL|^FAIL\b|^panic:|WARNING: DATA RACE|^(FAILED|ERROR) '
LOGS=$(mktemp -d) || exit 1
trap 'rm -rf "$LOGS"' EXIT
export WARREN_BINARY="$PWD/bin/warren"

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

names=() outcomes=() times=()
passed=0 failed=0 skipped=0
only=("$@")

wanted() {
	[ ${#only[@]} -eq 0 ] && return 0
	local o
	for o in "${only[@]}"; do [ "$o" = "$1" ] && return 0; done
	return 1
}

# section NAME TITLE COMMAND... runs a section and notes how it ended.
section() {
	local name=$1 title=$2
	shift 2
	wanted "$name" || return 0
	printf '\n%s== %s: %s%s\n' "$bold" "$name" "$title" "$plain"
	local begin=$SECONDS outcome=ok
	"$@" 2>&1 | tee "$LOGS/$name"
	case ${PIPESTATUS[0]} in
	0) passed=$((passed + 1)) ;;
	"$SKIP") outcome=skipped skipped=$((skipped + 1)) ;;
	*) outcome=FAILED failed=$((failed + 1)) ;;
	esac
	names+=("$name") outcomes+=("$outcome") times+=("$((SECONDS - begin))")
	printf '== %s: %s after %d s\n' "$name" "$outcome" "$((SECONDS - begin))"
}

tools() {
	local missing=0
	command -v go >/dev/null || { echo 'Go is not installed: https://go.dev/dl/' >&2; missing=1; }
	command -v python3 >/dev/null || { echo 'Python 3 is not installed' >&2; missing=1; }
	[ $missing -eq 0 ] || return 1
	go version
	if [ ! -x $VENV/bin/python ]; then
		rm -rf $VENV
		python3 -m venv $VENV || {
			echo 'python3 -m venv does not work here; on Debian: apt-get install python3-venv' >&2
			return 1
		}
	fi
	# The newest pika is wanted; without a network, the one that is there will do.
	$VENV/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -r test/pika/requirements.txt ||
		$VENV/bin/python -c 'import pika, pytest' || return 1
	$VENV/bin/python -c 'import pika, pytest, sys; print("Python", sys.version.split()[0], "pika", pika.__version__, "pytest", pytest.__version__)'
	go mod download
}

# lint asks the packages that were fetched before where there is no network.
lint() {
	local proxies
	proxies=$(go env GOPROXY) || return 1
	GOPROXY="${proxies//,/|}|file://$(go env GOMODCACHE)/cache/download" go run "$STATICCHECK" ./...
}

unit() { go test -race -short -timeout 30m ./...; }

# torture kills the log under load, and cuts its power, for half a minute each.
torture() { RAFTLOG_TORTURE_TIME=30s go test -count=1 -run Torture ./storage/...; }

build() { mkdir -p bin && go build -o "$WARREN_BINARY" ./cmd/warren && "$WARREN_BINARY" version; }

pika() { (cd test/pika && "../../$VENV/bin/python" -B -m pytest); }

conform() { go test -count=1 -v -timeout 20m ./test/conform; }

chaos() { go test -count=1 -v -timeout 45m ./test/chaos; }

# needs skips a section when a program is not installed.
needs() {
	command -v "$1" >/dev/null && return 0
	echo "skipped: $1 is not installed"
	return $SKIP
}

clients() { (cd $CLIENTS && "../../$VENV/bin/python" -B -m pytest "$@"); }

in_node() {
	needs node && needs npm || return
	[ $CLIENTS/node/node_modules/.package-lock.json -nt $CLIENTS/node/package-lock.json ] ||
		npm ci --prefix $CLIENTS/node --prefer-offline --silent --no-audit --no-fund || return 1
	echo "Node.js $(node --version)"
	clients test_node.py
}

in_java() {
	needs java && needs mvn || return
	[ $CLIENTS/java/lib -nt $CLIENTS/java/pom.xml ] ||
		{ mvn --quiet --batch-mode -Dstyle.color=never -f $CLIENTS/java/pom.xml dependency:copy-dependencies && touch $CLIENTS/java/lib; } || return 1
	java -version 2>&1 | head -n 1
	clients test_java.py
}

in_ruby() {
	needs ruby || return
	ruby -e 'require "bunny"' 2>/dev/null || {
		echo 'skipped: bunny is not installed; gem install bunny, or on Debian: apt-get install ruby-bunny'
		return $SKIP
	}
	ruby -e 'require "bunny"; puts "#{RUBY_ENGINE} #{RUBY_VERSION}, bunny #{Bunny::VERSION}"'
	clients test_ruby.py
}

# python_clients installs what is pinned; without a network, what is there will do.
python_clients() {
	$VENV/bin/python -m pip install --quiet --disable-pip-version-check -r $CLIENTS/requirements.txt ||
		$VENV/bin/python -c 'import aio_pika, celery, kombu'
}

in_python() { python_clients && clients test_kombu.py test_aio_pika.py; }

in_celery() { python_clients && clients test_celery.py; }

# why prints again what a failed section said about its failures, since what
# other sections print after it is long.
why() {
	printf '\n%s== why %s failed%s\n' "$bold" "$1" "$plain"
	if grep -qE "$FAILURE" "$LOGS/$1"; then
		grep -E -B 12 -A 25 "$FAILURE" "$LOGS/$1" | tail -n 200
	else
		tail -n 60 "$LOGS/$1"
	fi
}

section tools 'Go, Python and what they need' tools
section vet 'go vet' go vet ./...
section staticcheck "staticcheck ${STATICCHECK##*@}" lint
section unit 'all packages, with the race detector, without real processes' unit
section torture 'the log of queues, killed under load and cut off its power' torture
section build 'the binary' build
section pika "RabbitMQ's tutorials in pika, on every pair of nodes" pika
section node "Node's amqplib" in_node
section java "RabbitMQ's PerfTest and Java client" in_java
section ruby "Ruby's bunny" in_ruby
section python 'kombu and aio-pika' in_python
section celery 'Celery, with workers and nodes that are killed' in_celery
section conform 'what clients count on, and the integration tests of amqp091-go' conform
section chaos 'kill -9, freezing and restarting real nodes' chaos

for i in "${!names[@]}"; do
	[ "${outcomes[$i]}" = FAILED ] && why "${names[$i]}"
done
printf '\n%s== summary%s\n' "$bold" "$plain"
for i in "${!names[@]}"; do
	printf '%-12s %-7s %4d s\n' "${names[$i]}" "${outcomes[$i]}" "${times[$i]}"
done
printf '\nsections: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
