"""What people ask about policies and configurations, without a bus: one module for each command."""
