// Checks dashboards against Grafana's own schema: its types, strictly, with a field that does not exist as an error, and their constraints. In:
// files. Out: every mistake, and an exit code.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	// The panels and queries of dashboards are checked by the schemas of their own plugins.
	plugins.RegisterDefaultPlugins()
	failed := false
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	if failed || len(os.Args) == 1 {
		os.Exit(1)
	}
	fmt.Printf("Valid dashboards: %d\n", len(os.Args)-1)
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var found dashboard.Dashboard
	for _, mistakes := range []error{found.UnmarshalJSONStrict(text), found.Validate()} {
		// Note: without a mistake this is an empty list of errors, which is not nil.
		if mistakes != nil && mistakes.Error() != "" {
			return mistakes
		}
	}
	return nil
}
