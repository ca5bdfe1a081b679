# Everything installs what it needs. Caches live in $(CACHE), keyed by what they were made from.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/polypod
VENV   := .venv
BIN    := $(VENV)/bin
GO_SOURCES   := $(shell find sdks/go -name '*.go' -o -name 'go.*' | sort)
JAVA_SOURCES := $(shell find sdks/java -path '*/src/*' -type f -o -path 'sdks/java/pom.xml' | sort)
# an environment for each version of Airflow, and for each state of its lock file (tests/support/paths.py says the same)
AIRFLOWS     := 3.3 3.4
AIRFLOW_VENVS := $(foreach v,$(AIRFLOWS),$(CACHE)/airflow-$(v)-$(shell sha256sum tests/airflow_env/airflow-$(v).lock | cut -c1-12))

export POLYPOD_CACHE := $(CACHE)
export PYTHONUNBUFFERED := 1

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(VENV)/.installed ## make .venv, so that .venv/bin/polypod is the command

$(VENV)/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m compileall -q core crds coordinators bridge operator execution_api cli
	touch $@

toolchains: ## install Go, a JDK, Maven and npm if they are missing
	@scripts/need 'command -v go' golang
	@scripts/need 'command -v javac' default-jdk-headless
	@scripts/need 'command -v mvn' maven
	@scripts/need 'command -v npm' npm

postgres:
	@scripts/need 'ls /usr/lib/postgresql/*/bin/postgres' postgresql

browser:
	@scripts/need 'command -v chromium-headless-shell' chromium-headless-shell

promtool: $(CACHE)/promtool/usr/bin/promtool

# unpacked and not installed: the package would start a Prometheus
$(CACHE)/promtool/usr/bin/promtool:
	@echo "fetching promtool"; rm -rf $(CACHE)/promtool && mkdir -p $(CACHE)/promtool && cd $(CACHE)/promtool && \
	  { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } >download.log 2>&1 && \
	  dpkg-deb -x prometheus_*.deb . || { cat download.log >&2; \
	  echo "error: promtool is missing: put it at $@ (Debian's package 'prometheus' has it)" >&2; exit 2; }

examples: toolchains examples/hello/go/dist/hello examples/sales/go/dist/sales examples/sales/jvm/target/.built examples/sales/typescript/dist/bundle.mjs ## build the examples

conformance: toolchains sdks/conformance/go/dist/.built sdks/conformance/java/target/.built sdks/conformance/typescript/dist/bundle.mjs

examples/hello/go/dist/hello: $(GO_SOURCES) $(wildcard examples/hello/go/*.go examples/hello/go/go.*)
	cd examples/hello/go && go tool polypod-go-pack -o dist/hello .

examples/sales/go/dist/sales: $(GO_SOURCES) $(wildcard examples/sales/go/*.go examples/sales/go/go.*)
	cd examples/sales/go && go tool polypod-go-pack -o dist/sales .

sdks/conformance/go/dist/.built: $(GO_SOURCES) $(wildcard sdks/conformance/go/*.go sdks/conformance/go/go.*)
	cd sdks/conformance/go && go tool polypod-go-pack -o dist/2026-10-30/conformance . && \
	  go tool polypod-go-pack -schema-version 2026-06-16 -o dist/2026-06-16/conformance . && touch dist/.built

# All checkouts of a machine share Maven's local repository: the lock keeps others from replacing the SDK during a build
WITH_SDK = mkdir -p $(CACHE) && flock $(CACHE)/maven.lock sh -ec 'mvn -q -B -ntp -f sdks/java/pom.xml install; mvn -q -B -ntp -f $(patsubst %/target,%,$(@D))/pom.xml package'

sdks/java/target/.built: $(JAVA_SOURCES)
	cd sdks/java && mvn -q -B -ntp package && touch target/.built

examples/sales/jvm/target/.built: sdks/java/target/.built $(shell find examples/sales/jvm -path '*/src/*' -type f) examples/sales/jvm/pom.xml
	rm -rf $(@D) && $(WITH_SDK) && touch $@

# the jars for workers of Airflow 3.3 differ only in the SDK's own one
sdks/conformance/java/target/.built: sdks/java/target/.built $(shell find sdks/conformance/java -path '*/src/*' -type f) sdks/conformance/java/pom.xml
	rm -rf $(@D) && $(WITH_SDK) && cd sdks/conformance/java && cp -r target/jars target/jars-2026-06-16 && \
	  rm target/jars-2026-06-16/polypod-sdk-0.1.0.jar && \
	  cp ../../java/target/polypod-sdk-0.1.0-schema-2026-06-16.jar target/jars-2026-06-16/ && touch target/.built

# a Node binary comes from npm as well: the machine's own may be too old for the SDK
%/typescript/node_modules/.installed: %/typescript/package.json %/typescript/package-lock.json
	cd $*/typescript && npm ci --silent --no-audit --no-fund && touch node_modules/.installed

.PRECIOUS: %/typescript/node_modules/.installed

%/typescript/dist/bundle.mjs: %/typescript/main.ts %/typescript/node_modules/.installed
	cd $*/typescript && PATH="$$PWD/node_modules/node/bin:$$PATH" node_modules/.bin/airflow-ts-pack main.ts --outdir dist

launcher: toolchains launcher/dist/.built ## build the launcher for amd64 and arm64

launcher/dist/.built: $(wildcard launcher/*.go launcher/go.mod)
	for arch in amd64 arm64; do \
	  (cd launcher && CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -ldflags='-s -w' -o dist/polypod-launcher-$$arch .); done
	touch $@

airflow: $(AIRFLOW_VENVS:=/.installed) ## install the two versions of Airflow that the tests run against

# uv links files from its cache, so what both versions hold is on the disk once
$(CACHE)/airflow-%/.installed: $(VENV)/.installed
	mkdir -p $(CACHE)
	flock $(CACHE)/airflow.lock $(SHELL) -euc 'test -e $@ || { version=$*; $(PYTHON) -m venv $(@D) && \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python --require-hashes \
	    -r tests/airflow_env/airflow-$${version%-*}.lock; }; touch $@'

demo: setup examples image-files ## run the sales pipeline here, then on a real Kubernetes that is made for it
	@PYTHONPATH=tests $(BIN)/python examples/demo.py

demo-local: setup examples ## the first part of it: a JVM, a Go and a TypeScript task on this machine
	@echo; echo '$$ .venv/bin/polypod run -f examples/sales/taskruns.yaml --routing examples/sales/routing.yaml --show-xcoms'; echo
	@$(BIN)/polypod run -f examples/sales/taskruns.yaml --routing examples/sales/routing.yaml --show-xcoms

cluster: setup ## bring up this checkout's own one-node Kubernetes (needs root)
	@cd tests && ../$(BIN)/python -m cluster up

cluster-programs: setup image-files examples conformance ## build what a cluster of the tests is made of, once
	@cd tests && ../$(BIN)/python -m cluster build

cluster-down: setup ## and remove it, with all that is on it
	@cd tests && ../$(BIN)/python -m cluster down

fmt: setup ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	cd sdks/go && gofmt -w . ../conformance/go ../../examples/hello/go ../../examples/sales/go ../../launcher ../../tests/cluster/go

lint: setup ## ruff, mypy, import contracts, spelling, wording, gofmt and go vet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p polypod_core -p polypod_crds -p polypod_coordinators -p polypod_bridge -p polypod_operator -p polypod_execution_api -p polypod_cli -p polypod_airflow
	$(BIN)/mypy tests/conftest.py tests/run.py tests/{support,unit,api,cli,docs,chart,swap,faults,cluster} bench sdks docs examples charts scripts
	$(BIN)/lint-imports --no-cache
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/python scripts/wording.py
	$(BIN)/towncrier build --draft --version unreleased >/dev/null
	$(BIN)/helm lint --quiet --strict charts/polypod
	cd sdks/go && test -z "$$(gofmt -l . ../conformance/go ../../examples/hello/go ../../examples/sales/go ../../launcher ../../tests/cluster/go)" && go vet ./...
	cd launcher && go vet ./...

unit: setup ## run the tests that need nothing: no network, no build, half a minute
	POLYPOD_TESTS=quick $(BIN)/python -m pytest tests/unit -m "not needs"

T :=
test: setup ## run every test; T=tests/cluster/test_routing.py runs one file, with all that it needs
	@$(BIN)/python tests/run.py $(T)

test-all: setup ## the same with all that is long: hours
	@$(BIN)/python tests/run.py --all $(T)

fuzz: setup ## send a million mutated frames to the protocol code (ten minutes)
	POLYPOD_TESTS=all $(BIN)/python -m pytest --timeout=0 tests/unit/test_fuzz.py

bench: setup conformance airflow ## measure the bridge beside upstream's worker, into bench/RESULTS.md
	PYTHONPATH=tests $(BIN)/python bench/bridge.py

bench-pods: cluster-programs ## measure a TaskRun beside a bare pod on a real kubelet (needs root)
	PYTHONPATH=tests:bench $(BIN)/python bench/pods.py

bench-logs: setup conformance launcher ## measure what keeping a log costs
	PYTHONPATH=tests:bench $(BIN)/python bench/logs.py

bench-burst: setup ## measure 500 and 5,000 TaskRuns at once in two rigs
	PYTHONPATH=tests:bench $(BIN)/python bench/burst.py

bench-peers: setup ## measure Polypod, Argo Workflows and Tekton in one rig
	PYTHONPATH=tests:bench $(BIN)/python bench/peers.py

bench-scale: setup ## measure 100,000 TaskRuns that wait for their turn
	PYTHONPATH=tests:bench $(BIN)/python bench/scale.py

bench-capacity: setup ## work out what one operator carries, from what was measured
	PYTHONPATH=tests:bench $(BIN)/python bench/capacity.py

bench-soak: setup ## measure the operator's memory over 2,000 TaskRuns
	PYTHONPATH=tests:bench $(BIN)/python bench/soak.py

bench-fairness: setup ## measure what one namespace's flood of requests does to another's
	PYTHONPATH=tests:bench $(BIN)/python bench/fairness.py

bench-airflow: setup airflow ## measure PolypodExecutor beside KubernetesExecutor on a bare API server
	PYTHONPATH=tests:bench $(BIN)/python bench/airflow_executor.py

docs: setup ## build the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

generated: setup ## write anew what is generated
	$(BIN)/python sdks/generate_table.py
	$(BIN)/python docs/generate_reasons.py
	$(BIN)/python docs/generate_reference.py
	$(BIN)/python docs/generate_messages.py
	$(BIN)/python docs/generate_values.py
	$(BIN)/python -m polypod_crds.crd
	$(BIN)/python charts/generate.py

# What the images hold beside a base image with Python: wheels for their platform, our own packages, bytecode.
# They are collected without running anything of theirs, so one machine makes them for every architecture.
IMAGES      := bridge operator api
PYTHON_IN   := 3.11
PACKAGES_bridge   := core/polypod_core coordinators/polypod_coordinators bridge/polypod_bridge
PACKAGES_operator := core/polypod_core crds/polypod_crds coordinators/polypod_coordinators bridge/polypod_bridge operator/polypod_operator
PACKAGES_api      := core/polypod_core crds/polypod_crds execution_api/polypod_execution_api
PLATFORM_amd64 := x86_64-manylinux_2_28
PLATFORM_arm64 := aarch64-manylinux_2_28
ARCHES ?= $(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))
PACKAGE_FILES := $(shell find core crds coordinators bridge operator execution_api -name '*.py' -o -name '*.json' -o -name '*.mako' | grep -v __pycache__ | sort)

image-files: launcher $(foreach a,$(ARCHES),$(foreach i,$(IMAGES),build/image/$(a)/$(i)/.built)) ## what the Dockerfile copies

build/image/%/.built: images/*.lock $(PACKAGE_FILES) $(VENV)/.installed
	@echo "collecting $*"
	@rm -rf $(@D) && mkdir -p $(@D)
	@$(BIN)/uv pip install --quiet --no-deps --only-binary :all: --require-hashes --target $(@D) --python $(BIN)/python \
	  --python-version $(PYTHON_IN) --python-platform $(PLATFORM_$(word 1,$(subst /, ,$*))) -r images/$(notdir $*).lock
	@rm -rf $(@D)/bin $(@D)/.lock && cp -r $(PACKAGES_$(notdir $*)) $(@D)/
	@find $(@D) -name __pycache__ -prune -exec rm -rf {} +
	@# by content, not by time: an image's files may bear any date
	@$(BIN)/python -m compileall -q -j0 --invalidation-mode unchecked-hash -s $(@D) -p /opt/polypod $(@D)
	@touch $@

lock: setup ## resolve the dependencies anew
	for image in $(IMAGES); do \
	  $(BIN)/uv pip compile -q --universal --python-version $(PYTHON_IN) pyproject.toml --extra $$image --generate-hashes --no-emit-index-url --no-header -o images/$$image.lock; done
	$(BIN)/uv pip compile -q --universal --python-version 3.11 pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header -o requirements.lock
	for version in $(AIRFLOWS); do \
	  $(BIN)/uv pip compile -q tests/airflow_env/airflow-$$version.in --generate-hashes --no-emit-index-url --no-header -o tests/airflow_env/airflow-$$version.lock; done

clean: ## remove what was built here
	rm -rf $(VENV) sdks/*/target sdks/conformance/*/{target,dist,node_modules} examples/*/*/{target,dist,node_modules}


.PHONY: docs browser cluster-programs bench-pods bench-logs bench-burst bench-peers bench-scale bench-capacity bench-soak bench-fairness bench-airflow demo-local cluster cluster-down fmt unit help setup toolchains postgres promtool examples conformance launcher airflow demo lint test test-all fuzz bench generated lock clean image-files
