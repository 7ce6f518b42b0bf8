"""Languages and engines that Homeport finds on the machine or installs from the package registries, pinned by hash."""
