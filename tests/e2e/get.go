// get URL: the usual health check of a service in Go, with the standard library's client and a timeout of 3 s.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 3 * time.Second}
	answer, err := client.Get(os.Args[1])
	if err != nil {
		fmt.Println("unhealthy:", err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		fmt.Println("unhealthy:", answer.Status)
		os.Exit(1)
	}
}
