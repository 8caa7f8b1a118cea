"""What the API takes without losing a write: `make faults`, docs/faults.md."""
