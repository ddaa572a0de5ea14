"""The addresses of the server, by what they are about. Each function is thin: read, call, show."""
