// get URL: the probe that most Go images carry.
package main

import (
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil || answer.StatusCode != 200 {
		os.Exit(1)
	}
}
