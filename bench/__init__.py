"""What the budgets are measured with; see README.md."""
