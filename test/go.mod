module davit/test

go 1.26.0

require (
	golang.org/x/tools v0.14.0 // indirect
	rsc.io/script v0.0.2 // indirect
)
