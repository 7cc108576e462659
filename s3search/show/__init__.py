"""What people look at: pictures, terminal, report, dashboard."""
