// get URL: the kind of probe that most Go images have.
package main

import (
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil || response.StatusCode != 200 {
		os.Exit(1)
	}
}
