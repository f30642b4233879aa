// get URL: the probe in most Go images.
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
