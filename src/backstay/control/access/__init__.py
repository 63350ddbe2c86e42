"""Who may do what: users, tokens, roles within scopes, and the decisions."""
