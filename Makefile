# For habits. `make` alone says what there is.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ROUNDS      = 20
FUZZTIME    = 60s
COUNT       = 500000
TRIALS      = 200
BENCH       =
SCALE       = go test -count=1 -v -timeout 5h

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/warren
	@mkdir -p bin
	go build -o bin/warren ./cmd/warren

check: ## vet, staticcheck and all tests that start no processes: a minute
	go vet ./...
	go run $(STATICCHECK) ./...
	go test -race -short ./...

test: ## everything, as CI does
	./test.sh

bench: build ## load on a cluster of three of its own; BENCH='--queues 10 --publishers 4' for more
	bin/warren bench --local 3 $(BENCH)

clients-full: ## the clients of other languages, for minutes instead of seconds
	CLIENTS_FULL=1 ./test.sh tools build node java python celery

chaos: build ## ROUNDS=20 rounds of kill -9; SEED=n repeats the moments of a run
	WARREN_BINARY=$(CURDIR)/bin/warren ROUNDS=$(ROUNDS) go test -count=1 -v -timeout 2h ./test/chaos

amplification: build ## bytes written per byte of COUNT=500000 messages, by each of three nodes, with wal and boltdb
	WARREN_BINARY=$(CURDIR)/bin/warren AMPLIFICATION=$(COUNT) go test -count=1 -v -timeout 2h ./test/amplification

bitrot: ## TRIALS=200 times one bit flipped in every file of a stopped node; SEED=n repeats a run
	TRIALS=$(TRIALS) go test -count=1 -v -timeout 12h -run TestFlippedBitsInEveryFile ./node

bench-backlog: build ## a queue of MESSAGES=10000000: memory, rates, restart, order, disk
	WARREN_BINARY=$(CURDIR)/bin/warren MESSAGES=$(or $(MESSAGES),10000000) $(SCALE) -run TestADeepQueue ./test/scale

bench-queues: build ## QUEUES=50000 durable queues: declares, memory, idle processor, restart
	WARREN_BINARY=$(CURDIR)/bin/warren QUEUES=$(or $(QUEUES),50000) $(SCALE) -run TestManyQueues ./test/scale

bench-delays: build ## MESSAGES=1000000 delayed messages: restart, how late they are, memory
	WARREN_BINARY=$(CURDIR)/bin/warren MESSAGES=$(or $(MESSAGES),1000000) $(SCALE) -run TestDelayedMessages ./test/scale

bench-large: build ## MESSAGES=8 messages of BYTES=134217728: what they cost others in their group
	WARREN_BINARY=$(CURDIR)/bin/warren BYTES=$(or $(BYTES),134217728) MESSAGES=$(or $(MESSAGES),8) $(SCALE) -run TestALargeMessage ./test/scale

conform: ## the behaviours that clients count on, on a cluster of three of its own; CONFORM_AMQP for another
	go test -count=1 -skip TestAMQP091GoIntegration ./test/conform

conform-rabbitmq: ## the same on a RabbitMQ: RABBITMQ=amqp://guest:guest@host:5672/
	@test -n "$(RABBITMQ)" || { echo 'say where RabbitMQ is: make conform-rabbitmq RABBITMQ=amqp://guest:guest@host:5672/' >&2; exit 2; }
	CONFORM_AMQP='$(RABBITMQ)' go test -count=1 ./test/conform

fuzz: ## every fuzz test for FUZZTIME=60s
	@set -e; for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

.PHONY: help build check test bench bench-backlog bench-queues bench-delays bench-large clients-full chaos bitrot amplification conform conform-rabbitmq fuzz
