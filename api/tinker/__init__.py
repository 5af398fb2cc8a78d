"""The sampling part of Tinker's API: its requests, its futures, and its answers as protobuf.

https://github.com/thinking-machines-lab/tinker is the client. A request becomes a completion in the
background, and its future is the job.
"""
