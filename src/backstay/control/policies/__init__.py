"""Policy files: read, filled with variables, checked, shown."""
