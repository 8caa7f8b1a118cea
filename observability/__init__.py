"""What one learns of the running API: its log, metrics, traces and audit."""
