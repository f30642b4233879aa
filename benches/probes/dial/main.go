// dial HOST:PORT: the smallest possible probe in Go, which only connects.
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
	response := make([]byte, 2048)
	n, err := connection.Read(response)
	if err != nil || n < 12 || response[9] != '2' {
		os.Exit(1)
	}
}
