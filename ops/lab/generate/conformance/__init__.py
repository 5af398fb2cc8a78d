"""Lists every request field of every route, and how Lorikeet treats the field.

`python -m ops.lab.generate.conformance` generates the page in ops/docs. The tests send each row's
value to a running server, and check that the server treats the field as the row says.
"""
