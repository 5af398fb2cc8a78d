"""The ids that cross Redis, as types that don't mix."""

from typing import NewType

JobId = NewType("JobId", str)
"""128 random bits as 32 hex digits: unguessable."""
WorkerId = NewType("WorkerId", str)
"""`host:pid:boot-uuid`, never reused."""
ApiId = NewType("ApiId", str)
"""Names one API process, and with it its reply stream; never reused."""
InspectionId = NewType("InspectionId", str)
"""Names one look into an adapter's files."""
AdapterVersion = NewType("AdapterVersion", str)
"""`name@digest12`: one exact set of weights. The base model has one as well."""
