"""The stateless front end: HTTP in, jobs into Redis, answers out. It imports only `shared`."""
