"""What can be observed of the running API: its log, metrics, traces and audit."""
