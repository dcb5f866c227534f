# The commands that people need; "make help" lists them. Everything is built into bin/ and .cache/.

GO      ?= go
BIN     := bin
VERSION := 0.1.0+$(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X davit/internal/version.Version=$(VERSION)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
PREFIX  ?= /usr/local
STATICCHECK := v0.8.2
GOFUMPT := v0.12.0
UNITS   ?= /usr/lib/systemd/system

.PHONY: help build demo test check bench screenshots install uninstall clean peers

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the static programs bin/davit, bin/davitd and bin/davit-oci
	@mkdir -p $(BIN)
	$(BUILD) -o ociruntime/initbin/davit-init ./cmd/davit-init
	$(BUILD) -o $(BIN)/ ./cmd/davit ./cmd/davitd ./cmd/davit-oci

demo: build ## do the main job for real: build, ship and run a container, in a screenful
	./demo/run

test: build ## run every test; as root also those that need it
	./test/run

check: ## vet, staticcheck, gofumpt, layers.txt, deps.txt
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) test ./internal/archtest
	CGO_ENABLED=0 $(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...
	@unformatted=$$(CGO_ENABLED=0 $(GO) run mvdan.cc/gofumpt@$(GOFUMPT) -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi

bench: build ## measure side by side with the peers that are installed
	./test/bench/run

install: build ## install the programs and the systemd units (PREFIX, UNITS, DESTDIR)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BIN)/davit $(BIN)/davitd $(BIN)/davit-oci
	install -D -m 644 -t $(DESTDIR)$(UNITS) packaging/davit.service packaging/davit.socket
	sed -i 's|@PREFIX@|$(PREFIX)|' $(DESTDIR)$(UNITS)/davit.service

screenshots: build ## look at the registry's pages in a headless Chromium; pictures in .cache/screenshots
	@command -v chromium >/dev/null || { echo "chromium is missing: apt-get install chromium"; exit 1; }
	cd test && CGO_ENABLED=0 $(GO) run ./screenshots ../$(BIN)/davitd ../.cache/screenshots

uninstall: ## remove what install installed
	rm -f $(DESTDIR)$(PREFIX)/bin/davit $(DESTDIR)$(PREFIX)/bin/davitd $(DESTDIR)$(PREFIX)/bin/davit-oci
	rm -f $(DESTDIR)$(UNITS)/davit.service $(DESTDIR)$(UNITS)/davit.socket

clean: ## remove what build made
	rm -rf $(BIN) .cache
