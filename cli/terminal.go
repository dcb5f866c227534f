package cli

import "golang.org/x/term"

// isTerminal says whether a stream is a terminal; what is no file is none.
func isTerminal(stream any) bool {
	fd, ok := descriptor(stream)
	return ok && term.IsTerminal(fd)
}

// terminalWidth is a terminal's width in columns, 0 where there is none.
func terminalWidth(stream any) int {
	fd, ok := descriptor(stream)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(fd)
	if err != nil {
		return 0
	}
	return width
}

func descriptor(stream any) (int, bool) {
	file, ok := stream.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	return int(file.Fd()), true
}
