"""SGLang's `/generate`: its requests, bodies and events."""
