"""The documentation site: `make docs` builds it with `.mkdocs.yml` and these checks."""
