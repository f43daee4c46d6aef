"""Jobs on demand, a capture or a path: each a process that holds its programs, so that they end with it.

`supervisor` is the daemon's side. `runner` and `stream` are what every worker has; what it does there is a
`runner.Job`.
"""
