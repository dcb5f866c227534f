// Package initbin holds the davit-init program inside the programs that start containers. The build
// puts the binary beside this file before it compiles them (make build, or go generate here); without
// it everything compiles, and Open says what is missing.
package initbin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"davit/kernel/sys"
)

//go:generate env CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o davit-init davit/cmd/davit-init

//go:embed *
var files embed.FS

// Open returns the program in a sealed anonymous file, which nothing that runs from it can change
// (CVE-2019-5736).
func Open() (*os.File, error) {
	content, err := files.ReadFile("davit-init")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this program was built without davit-init: build it with make build")
	}
	if err != nil {
		return nil, fmt.Errorf("read davit-init: %w", err)
	}
	f, err := sys.SealedMemfd("davit-init", content)
	if err != nil {
		return nil, fmt.Errorf("make sealed davit-init: %w", err)
	}
	return f, nil
}
