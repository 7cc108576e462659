"""The study database: tables, rows, migrations, lease."""
