package main

import "syscall"

// nodeAttributes give a node a process group of its own, so that Ctrl-C in the
// terminal reaches `up` alone, which then asks each node once; and they have
// the kernel kill the node if `up` dies without having stopped it.
func nodeAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
