"""Studies as tables: who was measured, validated, chosen."""
