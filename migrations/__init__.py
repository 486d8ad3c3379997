"""The schema's history. `migrations.run.upgrade(url)` brings a database to this version."""
