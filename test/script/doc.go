// Package script runs the txtar scripts in testdata: what users type, and what they must see. The engine,
// its monitor and every container live in a network and mount namespace that the test makes, with no
// route out, so a script cannot touch the host.
//
// Besides the commands of rsc.io/script a script has:
//
//	davit, docker      the programs, pointed at the test's engine
//	retry CMD...       run a program until it succeeds, ten seconds at most
//	engine restart     stop the engine by SIGTERM and start it again, with more flags if there are any
//	engine kill        kill it by SIGKILL and start it again
//
// After each script nothing may be left of it: no container, volume, network, mount, interface, control
// group or process. What it started in the background is known by the variable WORK, the script's own
// directory; of a script that fails in its middle it is ended.
package script
