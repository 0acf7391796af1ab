"""HTTP, and only HTTP: routes, wire schemas, upload reading, and the one table from errors to status codes."""
