"""The stateless front end: queues requests as jobs and sends answers. It imports only `shared`."""
