"""Finding and reading what a coordinator runs: jars, executable bundles, TypeScript bundles."""
