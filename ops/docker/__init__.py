"""The Docker images: Dockerfile, scripts, and a rehearsal of the build without Docker."""
