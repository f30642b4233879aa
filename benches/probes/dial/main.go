// dial HOST:PORT: the least that a Go probe can be.
package main

import (
	"net"
	"os"
)

func main() {
	connection, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		os.Exit(1)
	}
	connection.Write([]byte("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
	answer := make([]byte, 2048)
	n, err := connection.Read(answer)
	if err != nil || n < 12 || answer[9] != '2' {
		os.Exit(1)
	}
}
