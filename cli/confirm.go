package cli

import (
	"bufio"
	"fmt"
	"strings"
)

// confirm asks and returns whether the answer was yes.
func (a *app) confirm(question string) bool {
	fmt.Fprint(a.out, question, "\nAre you sure you want to continue? [y/N] ")
	answer, _ := bufio.NewReader(a.in).ReadString('\n') // no answer is no
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}
